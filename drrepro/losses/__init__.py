"""The two classification losses: ``loss(logits, labels) -> scalar``."""

from drrepro.losses.dr import DRLoss
from drrepro.losses.focal import FocalLoss

__all__ = ["DRLoss", "FocalLoss"]
