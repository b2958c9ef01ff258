"""GHM-C: harmonize the gradients, weighting each (anchor, class) pair by how few others have a gradient like its own.

Li, Liu and Wang, *Gradient Harmonized Single-stage Detector* (AAAI 2019).
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from drrepro.distributed import sum_over_ranks, world
from drrepro.losses.contract import ClassificationLoss
from drrepro.losses.elementwise import complement_and_softplus
from drrepro.losses.precomputed import Precomputed
from drrepro.losses.stream import check, compute_dtype, pair_masks, pieces, put, sigmoid_
from drrepro.schema import LossConfig

LANES = 4  # histograms that neighbouring classes count in, since a CPU waits where each adds to what the last wrote


@dataclass
class GHMCParameters(LossConfig):
    """Those of the authors' RetinaNet."""

    bins: int = 30
    momentum: float = 0.75


class GHMCLoss(ClassificationLoss):
    """sum of CE / GD(g), g = |p - y| the norm of the gradient of CE in a logit, GD its density.

    GD(g) = M S, S the pairs in the bin of g, of M: a moving average over steps, S_t = momentum S_{t-1} + (1 - momentum)
    R_t from S_0 = 0, where R counts the pairs of one pass, of all ranks: the state of this module, which training mode
    changes. So ``accumulate`` changes the loss.
    """

    Parameters: ClassVar[type[LossConfig]] = GHMCParameters
    counts: Tensor

    def __init__(self, bins: int = GHMCParameters.bins, momentum: float = GHMCParameters.momentum) -> None:
        """Raise ValueError for less than 1 bin or a momentum outside [0, 1)."""
        super().__init__()
        if not bins >= 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be from 0 to below 1, got {momentum}")
        self.bins, self.momentum = bins, momentum
        self.register_buffer("counts", torch.zeros(bins, dtype=torch.float64))  # S

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar: float64 for float64 logits, else float32.

        logits (B, A, K) floating point; labels (B, A) int64: -1 ignored, 0 background, 1..K the class.
        """
        check(logits, labels)
        scores, found = _histogram(logits.detach(), labels, self.bins)
        found = sum_over_ranks(found)
        counts = self.momentum * self.counts.to(found.device) + (1 - self.momentum) * found
        if self.training:
            self.counts = counts
        weights = torch.where(counts > 0, 1 / (self.bins * counts), 0.0)
        kept = [scores]  # they are overwritten, so a second backward computes its own
        return Precomputed.apply(logits, partial(_weighted, labels, weights, kept))  # type: ignore[no-any-return]

    def share(self, logits: Tensor, labels: Tensor, positives: Tensor, parts: int, **beside: Tensor) -> Tensor:
        """Return a part's share: the ranks' add up, since the counts are of all, and passes are averaged."""
        return self(logits, labels) * (world() / parts)  # type: ignore[no-any-return]


def _histogram(logits: Tensor, labels: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Return the scores, as computed, and how many pairs have g in each of the bins, (bins,) float64."""
    dtype, device, classes = compute_dtype(logits), logits.device, logits.shape[2]
    weight, positive, column = pair_masks(labels, dtype)
    scores = torch.empty_like(logits, dtype=dtype)
    lanes = (torch.arange(classes, dtype=torch.int32, device=device) % LANES) * (bins + 1)
    counts = torch.zeros(LANES * (bins + 1), dtype=torch.int64, device=device)
    scale = bins * weight  # so that ignored anchors lie in the first bin, which is rid of them below
    for _, (x, p, by), (t,) in pieces(logits, scores, scale, scratch=1):
        place = _places(sigmoid_(p, x), by, t)
        counts += torch.bincount(place.add_(lanes).flatten(), minlength=len(counts))
    found = counts.view(LANES, bins + 1).sum(0).double()
    found[0] -= (weight == 0).sum() * classes
    p_pos = scores.gather(2, column)
    places = [_places(g, bins, torch.empty_like(g)).flatten() for g in (p_pos, 1 - p_pos)]
    as_negative, as_positive = (torch.bincount(place, positive.flatten(), bins + 1) for place in places)
    found += as_positive - as_negative
    found[-2] += found[-1]  # g = 1 is of the last bin
    return scores, found[:-1]


def _places(g: Tensor, bins: Tensor | int, scratch: Tensor) -> Tensor:
    """Return the bin of each g, int32: ``bins`` where it is 1, and 0, for now, where it is NaN."""
    return torch.nan_to_num(torch.mul(g, bins, out=scratch), out=scratch).int()


def _weighted(labels: Tensor, weights: Tensor, kept: list[Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return sum of weight CE, of slope weight (p - y), and its gradient; ``weights`` (bins,) of the bin of g.

    The gradient takes the place of the scores, if they are ``kept``.
    """
    dtype, bins = compute_dtype(logits), len(weights)
    weight, positive, column = pair_masks(labels, dtype)
    gradient = kept.pop() if kept else logits.to(dtype).sigmoid()
    table = torch.cat([weights, weights[-1:]]).to(dtype)
    x_pos, p_pos = logits.gather(2, column).to(dtype), gradient.gather(2, column)
    sums = [weight.new_zeros(())]  # and 0 or, for an infinite logit, which its score would hide, NaN
    tensors = logits, gradient, weight, 1 - positive, column
    for _, (x, p, counts, keep, here), (n, s, t) in pieces(*tensors, scratch=3):
        complement_and_softplus(x.to(dtype), p, n, s, t)
        w = table.index_select(0, _places(p, bins, t).flatten()).view_as(p)
        put(w.mul_(counts), here, keep)
        p.mul_(w)
        sums += [s.mul_(w).sum(), 0 * x.sum(dtype=dtype)]
    w_pos = table[_places(1 - p_pos, bins, torch.empty_like(p_pos))] * positive
    gradient.scatter_add_(2, column, w_pos * (p_pos - 1))
    found = torch.where(positive > 0, w_pos * functional.softplus(-x_pos), 0.0).sum(dtype=torch.float64)
    return (torch.stack(sums).sum(dtype=torch.float64) + found).to(dtype), gradient
