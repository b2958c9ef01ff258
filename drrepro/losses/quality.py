"""Losses whose target of a positive is a quality: the IoU of its predicted box with the box that its anchor matched."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from drrepro.losses.elementwise import ElementwiseLoss, power_
from drrepro.schema import LossConfig


@dataclass
class QualityFocalParameters(LossConfig):
    """That of the paper."""

    beta: float = 2.0


class QualityFocalLoss(ElementwiseLoss):
    """sum of |y - p|^beta CE(p, y), y the IoU of a positive, else 0.

    Eq. 2 of Li et al., *Generalized Focal Loss* (NeurIPS 2020), divided by positives + images [M].
    CE(p, y) = -(1 - y) log(1 - p) - y log p = softplus(x) - y x.
    """

    Parameters = QualityFocalParameters
    needs_ious = True

    def __init__(self, beta: float = QualityFocalParameters.beta) -> None:
        """Raise ValueError for a beta below 1, where the gradient has no bound."""
        super().__init__()
        if not beta >= 1:
            raise ValueError(f"beta must be at least 1, got {beta}")
        self.gamma, self.negative_weight = beta, 1.0

    def positives(self, x: Tensor, positive: Tensor, scale: Tensor, ious: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return |d|^beta CE, d = p - y, and its slope beta |d|^(beta - 1) sign(d) p (1 - p) CE + |d|^beta d."""
        assert ious is not None
        p = x.sigmoid()
        off, entropy = p - ious, functional.softplus(x) - ious * x
        weight = scale.to(x.dtype) * positive
        size = off.abs()
        slope = self.gamma * size ** (self.gamma - 1) * off.sign() * p * (1 - p) * entropy + size**self.gamma * off
        return weight * size**self.gamma * entropy, weight * slope


@dataclass
class VarifocalParameters(LossConfig):
    """Those of the paper."""

    alpha: float = 0.75
    gamma: float = 2.0


class VarifocalLoss(ElementwiseLoss):
    """sum of q CE(p, q) where the IoU q of a positive exceeds 0, else of -alpha p^gamma log(1 - p).

    Eq. 2 of Zhang et al., *VarifocalNet* (CVPR 2021), divided by positives + images [M].
    """

    Parameters = VarifocalParameters
    needs_ious = True

    def __init__(self, alpha: float = VarifocalParameters.alpha, gamma: float = VarifocalParameters.gamma) -> None:
        """Raise ValueError for a negative alpha or gamma."""
        super().__init__()
        if not alpha >= 0:
            raise ValueError(f"alpha must not be negative, got {alpha}")
        if not gamma >= 0:
            raise ValueError(f"gamma must not be negative, got {gamma}")
        self.gamma, self.negative_weight = gamma, alpha

    def positives(self, x: Tensor, positive: Tensor, scale: Tensor, ious: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return q (s - q x), s = softplus(x), and its slope q (p - q); where q = 0 those of a negative."""
        assert ious is not None
        p, s = x.sigmoid(), functional.softplus(x)
        weight = scale.to(x.dtype) * positive
        down = self.negative_weight * power_(p.clone(), self.gamma)
        term = torch.where(ious == 0, down * s, ious * (s - ious * x))
        slope = torch.where(ious == 0, down * (self.gamma * (1 - p) * s + p), ious * (p - ious))
        return weight * term, weight * slope
