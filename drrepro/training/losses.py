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


def classification_loss(
    loss: DRLoss | FocalLoss, logits: Tensor, labels: Tensor, positives: Tensor, parts: int
) -> Tensor:
    """Return a part's share of the step's loss: the shares of all ``parts``, equally large, add up to it.

    logits (B, A, K), labels (B, A); ``positives``, a scalar, are those of all parts.
    """
    if isinstance(loss, FocalLoss):
        return loss(logits, labels, positives + parts * len(labels))  # type: ignore[no-any-return]
    return loss(logits, labels) / parts  # type: ignore[no-any-return]


def box_loss(
    deltas: Tensor,
    anchors: Tensor,
    labels: Tensor,
    boxes: Tensor,
    config: LossConfig,
    weights: list[float],
    positives: Tensor,
) -> Tensor:
    """Smooth L1 summed over the positives, divided by max(1, normalizer * positives) [M]: a share, as above.

    deltas (B, A, 4), anchors (A, 4), labels (B, A), boxes (B, A, 4): the box that each anchor matched; ``positives``,
    a scalar, are those of all parts.
    """
    positive = labels > 0
    targets = encode(boxes[positive], anchors.expand_as(boxes)[positive], weights)
    total = functional.smooth_l1_loss(deltas[positive].float(), targets, reduction="sum", beta=config.box_beta)
    return total / (config.box_normalizer * positives).clamp(min=1)
