"""The classification losses: ``loss(logits, labels) -> scalar``."""

from drrepro.losses.contract import ClassificationLoss
from drrepro.losses.dr import DRLoss
from drrepro.losses.focal import BalancedCrossEntropy, FocalLoss
from drrepro.losses.ghm import GHMCLoss
from drrepro.losses.quality import QualityFocalLoss, VarifocalLoss
from drrepro.losses.ranked import APLoss, RankSortLoss

__all__ = [
    "APLoss",
    "BalancedCrossEntropy",
    "ClassificationLoss",
    "DRLoss",
    "FocalLoss",
    "GHMCLoss",
    "QualityFocalLoss",
    "RankSortLoss",
    "VarifocalLoss",
]
