"""Box regression."""

import torch
from torch import Tensor
from torch.nn import functional

from drrepro.losses.contract import Normalizer
from drrepro.losses.stream import maybe_positive
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

    deltas (B, A, 4), anchors (A, 4), labels (B, A), boxes (B, A, 4): the box that each anchor matched.
    """
    own = maybe_positive(labels)
    positive = labels.flatten().index_select(0, own) > 0
    predicted, matched = (t.flatten(0, 1).index_select(0, own) for t in (deltas, boxes))
    targets = torch.stack(encode(matched, anchors[own % len(anchors)], weights), dim=1)
    error = torch.where(positive[:, None], predicted.float() - targets, 0.0)
    losses = functional.smooth_l1_loss(error, torch.zeros_like(error), reduction="none", beta=config.box_beta)
    divisor = (config.box_normalizer * normalizer.positives).clamp(min=1) * normalizer.parts
    return (losses.sum(1) / divisor[own // len(anchors)]).sum()
