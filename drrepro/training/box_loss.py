"""Box regression."""

import torch
from torch import Tensor
from torch.nn import functional

from drrepro.losses.contract import Normalizer
from drrepro.models.anchors import encode
from drrepro.schema import LossConfig


def box_loss(
    deltas: Tensor,
    anchors: Tensor,
    labels: Tensor,
    boxes: Tensor,
    config: LossConfig,
    weights: list[float],
    normalizer: Normalizer,
) -> Tensor:
    """Smooth L1 summed over the positives, divided by max(1, box_normalizer * positives) [M]: a pass's share of a step.

    deltas (B, A, 4), anchors (A, 4), labels (B, A), boxes (B, A, 4): the box that each anchor matched. All anchors are
    computed with, since a GPU would wait for the number of positives.
    """
    positive, nothing = labels > 0, torch.zeros_like(deltas[..., 0], dtype=torch.float32)
    total = torch.zeros(len(labels), device=labels.device)
    for delta, target in zip(deltas.float().unbind(2), encode(boxes, anchors, weights), strict=True):
        error = torch.where(positive, delta - target, 0.0)
        total = total + functional.smooth_l1_loss(error, nothing, reduction="none", beta=config.box_beta).sum(1)
    divisor = (config.box_normalizer * normalizer.positives).clamp(min=1) * normalizer.parts
    return (total / divisor).sum()
