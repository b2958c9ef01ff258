"""The classification losses: ``loss(logits, labels) -> scalar``."""

from drrepro.losses.contract import ClassificationLoss
from drrepro.losses.dr import DRLoss
from drrepro.losses.focal import FocalLoss

__all__ = ["ClassificationLoss", "DRLoss", "FocalLoss"]
