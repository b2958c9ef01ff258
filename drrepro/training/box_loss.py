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
    targets = torch.stack(encode(boxes, anchors, weights))  # (4, B, A), a coordinate at a time as `match` lays them out
    predicted = deltas.movedim(2, 0).to(torch.float32, memory_format=torch.contiguous_format)
    error = torch.where(labels > 0, predicted - targets, 0.0)
    losses = functional.smooth_l1_loss(error, torch.zeros_like(error), reduction="none", beta=config.box_beta)
    divisor = (config.box_normalizer * normalizer.positives).clamp(min=1) * normalizer.parts
    return (losses.sum((0, 2)) / divisor).sum()
