"""Focal loss: down-weight the easy (anchor, class) pairs.

Lin et al., *Focal Loss for Dense Object Detection* (ICCV 2017), the paper's baseline; and its balanced cross-entropy.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from drrepro.losses.elementwise import ElementwiseLoss, complement_and_softplus, power_
from drrepro.losses.stream import sigmoid_
from drrepro.schema import LossConfig


@dataclass
class FocalParameters(LossConfig):
    """Those of the paper, as in [M]."""

    gamma: float = 2.0
    alpha: float = 0.25


class FocalLoss(ElementwiseLoss):
    """sum of -alpha_t (1 - p_t)^gamma log(p_t) over (anchor, class), eq. 5, divided by positives + images [M]."""

    Parameters: ClassVar[type[LossConfig]] = FocalParameters

    def __init__(self, gamma: float = FocalParameters.gamma, alpha: float = FocalParameters.alpha) -> None:
        """Raise ValueError for a negative gamma or an alpha outside [0, 1]."""
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"gamma must be non-negative, got {gamma}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, got {alpha}")
        self.gamma, self.alpha, self.negative_weight = gamma, alpha, 1 - alpha

    def positives(self, x: Tensor, positive: Tensor, scale: Tensor, ious: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return alpha n^gamma s, s = -log p, n = 1 - p, and its slope alpha n^gamma (-gamma p s - n)."""
        n, p, s, scratch = (torch.empty_like(x) for _ in range(4))
        complement_and_softplus(-x, sigmoid_(n, -x), p, s, scratch)
        weight = (self.alpha * scale).to(x.dtype) * positive * power_(n.clone(), self.gamma)
        return weight * s, -weight * (self.gamma * p * s + n)


@dataclass
class BalancedParameters(LossConfig):
    """That of the paper: the best of Table 1a."""

    alpha: float = 0.75


class BalancedCrossEntropy(FocalLoss):
    """sum of -alpha_t log(p_t) over (anchor, class), eq. 3: focal loss with gamma 0."""

    Parameters = BalancedParameters

    def __init__(self, alpha: float = BalancedParameters.alpha) -> None:
        """Raise ValueError for an alpha outside [0, 1]."""
        super().__init__(0.0, alpha)
