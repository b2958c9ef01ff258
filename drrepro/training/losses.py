"""The training objective of one batch: classification plus box regression."""

from torch import Tensor
from torch.nn import functional

from drrepro.losses import DRLoss, FocalLoss
from drrepro.models.anchors import encode
from drrepro.schema import LossConfig


def build_loss(config: LossConfig) -> DRLoss | FocalLoss:
    """Return the classification loss that the configuration names."""
    if config.name == "dr":
        return DRLoss(config.pos_lambda, config.h, config.L, config.margin, config.tau, config.scope)
    return FocalLoss(config.gamma, config.alpha)


def box_loss(
    deltas: Tensor, anchors: Tensor, labels: Tensor, boxes: Tensor, config: LossConfig, weights: list[float]
) -> Tensor:
    """Smooth L1 summed over the positives, divided by max(1, normalizer * positives) [M].

    deltas (B, A, 4), anchors (A, 4), labels (B, A), boxes (B, A, 4): the box that each anchor matched.
    """
    positive = labels > 0
    targets = encode(boxes[positive], anchors.expand_as(boxes)[positive], weights)
    total = functional.smooth_l1_loss(deltas[positive].float(), targets, reduction="sum", beta=config.box_beta)
    return total / (config.box_normalizer * positive.sum()).clamp(min=1)
