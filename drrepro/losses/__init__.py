"""The classification losses: ``loss(logits, labels) -> scalar``."""

from drrepro.losses.contract import ClassificationLoss
from drrepro.losses.dr import DRLoss
from drrepro.losses.focal import BalancedCrossEntropy, FocalLoss
from drrepro.losses.quality import QualityFocalLoss, VarifocalLoss

__all__ = [
    "BalancedCrossEntropy",
    "ClassificationLoss",
    "DRLoss",
    "FocalLoss",
    "QualityFocalLoss",
    "VarifocalLoss",
]
