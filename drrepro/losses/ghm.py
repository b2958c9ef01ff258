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
from drrepro.losses.contract import ClassificationLoss, Normalizer
from drrepro.losses.elementwise import complement_and_softplus
from drrepro.losses.precomputed import Precomputed
from drrepro.losses.stream import (
    Places,
    check,
    compute_dtype,
    drop_positives_,
    finite,
    pair_masks,
    pieces,
    positive_places,
    sigmoid_,
)
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
    changes. So ``accumulate`` changes the loss. The authors' release divides by the bins that are not empty in place of
    M, and S changes in those alone. The paper's box loss, GHM-R, is not taken over: the box term is the protocol's.
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
        places, known = positive_places(labels), finite(logits)
        nothing = torch.zeros(self.bins, dtype=torch.float64, device=logits.device), None
        found, p_pos = _histogram(logits.detach(), labels, places, self.bins) if known else nothing
        found = sum_over_ranks(found)  # which the other ranks wait for
        if p_pos is None:
            return torch.nan * logits.sum(dtype=compute_dtype(logits))
        counts = self.momentum * self.counts.to(found.device) + (1 - self.momentum) * found
        if self.training:
            self.counts = counts
        weights = torch.where(found > 0, 1 / (self.bins * counts), 0.0)  # of bins long empty it would be infinite
        return Precomputed.apply(logits, partial(_weighted, labels, places, p_pos, weights))  # type: ignore[no-any-return]

    def share(self, logits: Tensor, labels: Tensor, normalizer: Normalizer, passes: int, **beside: Tensor) -> Tensor:
        """Return a pass's share: the ranks' add up, since the counts are of all, and a rank's passes are averaged."""
        return self(logits, labels) * (world() / passes)  # type: ignore[no-any-return]


def _histogram(logits: Tensor, labels: Tensor, places: Places, bins: int) -> tuple[Tensor, Tensor]:
    """Return how many pairs have g in each of the bins, (bins,) float64, and the scores of the positives (P,)."""
    dtype, device, classes = compute_dtype(logits), logits.device, logits.shape[2]
    weight, _, column = pair_masks(labels, dtype)
    p_own = torch.empty_like(weight)
    lanes = (torch.arange(classes, dtype=torch.int32, device=device) % LANES) * (bins + 1)
    counts = torch.zeros(LANES * (bins + 1), dtype=torch.int64, device=device)
    scale = bins * weight  # so that ignored anchors lie in the first bin, which is rid of them below
    for _, (x, by, here, own), (p,) in pieces(logits, scale, column, p_own, scratch=1):
        torch.gather(sigmoid_(p, x), 1, here, out=own)
        counts += torch.bincount(_bin(p, by, out=p).add_(lanes).flatten(), minlength=len(counts))
    found = counts.view(LANES, bins + 1).sum(0)
    found[0] -= (weight == 0).sum() * classes
    p_pos = p_own[places[:2]].flatten()
    as_negative, as_positive = (torch.bincount(_bin(g, bins), minlength=bins + 1) for g in (p_pos, 1 - p_pos))
    found += as_positive - as_negative
    found[-2] += found[-1]  # g = 1 is of the last bin
    return found[:-1].double(), p_pos


def _bin(g: Tensor, bins: Tensor | int, out: Tensor | None = None) -> Tensor:
    """Return the bin of each g, int32: ``bins`` where it is 1; ``out`` is scratch."""
    return torch.mul(g, bins, out=out).int()


def _weighted(labels: Tensor, places: Places, p_pos: Tensor, weights: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return sum of weight CE, of slope weight (p - y), and its gradient; ``weights`` (bins,) of the bin of g."""
    dtype, bins = compute_dtype(logits), len(weights)
    weight, positive, column = pair_masks(labels, dtype)
    table = torch.cat([weights, weights[-1:]]).to(dtype)
    gradient = torch.empty_like(logits, dtype=dtype)
    sums = [weight.new_zeros(())]
    tensors = logits, gradient, weight, 1 - positive, column
    for _, (x, p, counts, keep, here), (n, s, t) in pieces(*tensors, scratch=3):
        complement_and_softplus(x.to(dtype), sigmoid_(p, x), n, s, t)
        w = torch.index_select(table, 0, _bin(p, bins, out=t).flatten(), out=n.view(-1)).view_as(p)
        drop_positives_(w.mul_(counts), here, keep)
        p.mul_(w)
        sums.append(s.mul_(w).sum())
    w_pos = table[_bin(1 - p_pos, bins)]
    gradient[places] = w_pos * (p_pos - 1)
    sums.append((w_pos * functional.softplus(-logits[places].to(dtype))).sum())
    return torch.stack(sums).sum(dtype=torch.float64).to(dtype), gradient
