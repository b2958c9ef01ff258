"""Sums over (positive, negative) pairs of H(x_j - x_i), exact and without the pairs.

H(d) is d / (2 delta) + 1/2, cut to [0, 1]. Summed over one of the two it is piecewise linear in the other, with knots
at x_i - delta and x_i + delta. So the negatives are counted, and their logits summed, between neighbouring knots: a
cell of a grid says between which, and the few in cells with a knot in them are searched for.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from drrepro.losses.stream import compute_dtype, pair_masks, pieces

CELLS = 2**14


@dataclass(frozen=True)
class Negatives:
    """The negatives by bucket: number b has the b-th knot as its lower end, number 0 those below all and what is none.

    buckets (B, A, K) of each logit; knots (2P,), sorted; counts, and sums of x - knots[0], (2P + 1,) float64.
    """

    logits: Tensor
    buckets: Tensor
    knots: Tensor
    counts: Tensor
    sums: Tensor
    delta: float

    def above(self, x_pos: Tensor) -> Tensor:
        """Return sum over negatives j of H(x_j - x_i) by positive i, (P,) float64."""
        start, end = self._window(x_pos)
        shifted = (x_pos - self.knots[0]).double()
        counts, sums = (torch.cat([v.new_zeros(1), v.cumsum(0)]) for v in (self.counts, self.sums))
        inside = counts[end] - counts[start]
        linear = (sums[end] - sums[start] - inside * shifted) / (2 * self.delta) + inside / 2
        return (linear + counts[-1] - counts[end]).clamp(min=0)

    def spread(self, x_pos: Tensor, weights: Tensor) -> Tensor:
        """Return sum over positives i of ``weights``_i H(x_j - x_i) by logit j, (B, A, K); 0 of what is no negative."""
        start, end = self._window(x_pos)
        steps = weights.new_zeros(len(self.counts) + 1)
        slope = steps.index_add(0, start, weights).index_add(0, end, -weights).cumsum(0)[:-1] / (2 * self.delta)
        widths = torch.cat([self.knots.new_zeros(1), self.knots.diff(), self.knots.new_zeros(1)]).double()
        value = torch.cat([slope.new_zeros(1), (slope * widths)[:-1].cumsum(0)])  # at the lower end
        lower = torch.cat([self.knots[:1], self.knots])
        dtype = compute_dtype(self.logits)
        tables = [table.to(dtype) for table in (lower, slope, value)]
        out = torch.empty_like(self.logits, dtype=dtype)
        for _, (x, own, bucket), (t,) in pieces(self.logits, out, self.buckets, scratch=1):
            place = bucket.int().flatten()
            k, s, v = (table.index_select(0, place).view_as(own) for table in tables)
            torch.addcmul(v, s, torch.sub(x, k, out=t), out=own)
        return out

    def _window(self, x_pos: Tensor) -> tuple[Tensor, Tensor]:
        """Return the buckets (P,) between whose lower ends H is neither 0 nor 1."""
        ends = (x_pos - self.delta, x_pos + self.delta)
        start, end = (torch.searchsorted(self.knots, one.contiguous(), right=True) for one in ends)
        return start, end


def sort_negatives(logits: Tensor, labels: Tensor, x_pos: Tensor, delta: float) -> Negatives:
    """Return the negatives of finite logits (B, A, K) by bucket, for the logits of the positives (P,), P > 0."""
    knots = torch.cat([x_pos - delta, x_pos + delta]).sort().values
    lowest, grid, table = _grid(knots)
    weight, positive, column = pair_masks(labels, knots.dtype)
    infinite = torch.where(positive > 0, -torch.inf, torch.inf).to(knots.dtype)
    buckets = torch.empty_like(logits, dtype=torch.int16 if len(knots) < 2**15 else torch.int32)
    counts = torch.zeros(len(knots) + 1, dtype=torch.float64, device=logits.device)
    sums = counts.clone()
    for _, (x, out, ignored, here, bound), (t, cell) in pieces(
        logits, buckets, weight == 0, column, infinite, scratch=2
    ):
        t.copy_(x).masked_fill_(ignored, -torch.inf).scatter_reduce_(1, here, bound, "amin")
        found = table.index_select(0, grid.of(t, out=cell).int().flatten())
        near = (found < 0).nonzero()[:, 0]
        found[near] = torch.searchsorted(knots, t.flatten()[near], right=True).to(found.dtype)
        out.copy_(found.view_as(out))
        counts += torch.bincount(found, minlength=len(counts))
        sums += torch.bincount(found, t.sub_(lowest).flatten().double(), len(counts))
    counts[0] = sums[0] = 0
    return Negatives(logits, buckets, knots, counts, sums, delta)


@dataclass(frozen=True)
class _Grid:
    """Cells of equal width over the knots, one more on either side; a larger x is never in a lower cell."""

    scale: float
    offset: Tensor

    def of(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.add(self.offset, x, alpha=self.scale, out=out).clamp_(0, CELLS - 1)


def _grid(knots: Tensor) -> tuple[Tensor, _Grid, Tensor]:
    """Return the lowest knot, the grid, and by cell the bucket of what lies in it, -1 where a knot does."""
    lowest, highest = knots[0], knots[-1]
    scale = float((CELLS - 3) / (highest - lowest))
    grid = _Grid(scale, 1 - lowest * scale)
    cells = grid.of(knots).int()
    every = torch.arange(CELLS, dtype=torch.int32, device=knots.device)
    below = torch.searchsorted(cells, every, right=True)
    table = torch.where(below > torch.searchsorted(cells, every), -1, below)
    return lowest, grid, table.to(torch.int16 if len(knots) < 2**15 else torch.int32)
