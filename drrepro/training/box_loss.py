"""Box regression."""

from torch import Tensor
from torch.nn import functional

from drrepro.models.anchors import encode
from drrepro.schema import LossConfig


def box_loss(
    deltas: Tensor,
    anchors: Tensor,
    labels: Tensor,
    boxes: Tensor,
    config: LossConfig,
    weights: list[float],
    positives: Tensor,
) -> Tensor:
    """Smooth L1 summed over the positives, divided by max(1, normalizer * positives) [M]: a part's share of a step.

    deltas (B, A, 4), anchors (A, 4), labels (B, A), boxes (B, A, 4): the box that each anchor matched; ``positives``,
    a scalar, are those of all parts.
    """
    positive = labels > 0
    targets = encode(boxes[positive], anchors.expand_as(boxes)[positive], weights)
    total = functional.smooth_l1_loss(deltas[positive].float(), targets, reduction="sum", beta=config.box_beta)
    return total / (config.box_normalizer * positives).clamp(min=1)
