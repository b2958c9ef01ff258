"""Sums over (positive, negative) pairs of H(x_j - x_i), exact and without the pairs.

H(d) is d / (2 delta) + 1/2, cut to [0, 1]. Summed over one of the two it is piecewise linear in the other, with knots
at x_i - delta and x_i + delta. So the negatives are counted, and their logits summed, between neighbouring knots: a
cell of a grid says between which, and the few in cells with a knot in them are searched for; of half precision, which
has 65,536 values, each value is, once. All of it is in float64 and from the lowest positive on, since float32 does not
tell x_i from x_i + delta where logits are large.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from drrepro.losses.stream import compute_dtype, pair_masks, pieces

CELLS = 2**14
VALUES = 2**16  # of half precision


@dataclass(frozen=True)
class Negatives:
    """The negatives by bucket: number b has the b-th knot as its lower end, number 0 those below all and what is none.

    buckets (B, A, K) of each logit; lowest, of the positives; knots (2P,), sorted, and sums (2P + 1,) of logits, both
    counted from ``lowest``; counts (2P + 1,). All but the logits and buckets are float64.
    """

    logits: Tensor
    buckets: Tensor
    lowest: Tensor
    knots: Tensor
    counts: Tensor
    sums: Tensor
    delta: float

    def above(self, x_pos: Tensor) -> Tensor:
        """Return sum over negatives j of H(x_j - x_i) by positive i, (P,)."""
        start, end = (self._bucket(u) for u in self._window(x_pos))
        counts, sums = (torch.cat([v.new_zeros(1), v.cumsum(0)]) for v in (self.counts, self.sums))
        inside = counts[end] - counts[start]
        linear = (sums[end] - sums[start] - inside * (x_pos - self.lowest)) / (2 * self.delta) + inside / 2
        return (linear + counts[-1] - counts[end]).clamp(min=0)

    def spread(self, x_pos: Tensor, weights: Tensor) -> Tensor:
        """Return sum over positives i of ``weights``_i H(x_j - x_i) by logit j, (B, A, K); 0 of what is no negative."""
        opens, closes = self._window(x_pos)
        start, end = self._bucket(opens), self._bucket(closes)
        slope = self._while_open(start, end, weights / (2 * self.delta))
        slope[self._while_open(start, end, torch.ones_like(weights)) == 0] = 0  # and no residue of the sums
        widths = torch.cat([self.knots.new_zeros(1), self.knots.diff()])
        value = torch.cat([slope.new_zeros(1), (slope[:-1] * widths).cumsum(0)])  # at the lower end
        rounded = weights * (1 - (closes - opens) / (2 * self.delta))  # all, where x_i + delta is x_i in float64 too
        value += torch.zeros_like(value).index_add_(0, end, rounded).cumsum(0)
        lower = torch.cat([self.knots[:1], self.knots])
        out = torch.empty_like(self.logits, dtype=compute_dtype(self.logits))
        for _, (x, own, bucket), () in pieces(self.logits, out, self.buckets, scratch=0):
            place = bucket.int().flatten()
            k, s, v = (table.index_select(0, place).view_as(own) for table in (lower, slope, value))
            own.copy_(torch.addcmul(v, s, _from(self.lowest, x).sub_(k)))
        return out

    def _window(self, x_pos: Tensor) -> tuple[Tensor, Tensor]:
        """Return the knots (P,) between which H is neither 0 nor 1."""
        return x_pos - self.lowest - self.delta, x_pos - self.lowest + self.delta

    def _bucket(self, knots: Tensor) -> Tensor:
        return torch.searchsorted(self.knots, knots, right=True)

    def _while_open(self, start: Tensor, end: Tensor, values: Tensor) -> Tensor:
        """Return by bucket the sum of the ``values`` (P,) of the windows that it is in."""
        changes = values.new_zeros(len(self.counts)).index_add_(0, start, values).index_add_(0, end, -values)
        return changes.cumsum(0)


@dataclass(frozen=True)
class HalfNegatives:
    """The negatives of half precision: its values that occur by bucket, each as often as it does.

    bits (B, A, K): which value each logit is; present (V,): those that occur; ignored (B, A).
    """

    values: Negatives
    bits: Tensor
    present: Tensor
    ignored: Tensor

    def above(self, x_pos: Tensor) -> Tensor:
        """Return what `Negatives.above` does."""
        return self.values.above(x_pos)

    def spread(self, x_pos: Tensor, weights: Tensor) -> Tensor:
        """Return what `Negatives.spread` does, but that a positive has what a negative of its logit would have."""
        own = self.values.spread(x_pos, weights).flatten()
        table = own.new_zeros(VALUES).index_copy_(0, self.present, own)
        out = table.index_select(0, self.bits.flatten()).view(self.bits.shape)
        return out.masked_fill_(self.ignored[..., None], 0)


def sort_negatives(logits: Tensor, labels: Tensor, x_pos: Tensor, delta: float) -> Negatives | HalfNegatives:
    """Return the negatives of finite logits (B, A, K) by bucket, for those of the positives (P,) float64, P > 0."""
    lowest = x_pos.min()
    knots = torch.cat([x_pos - lowest - delta, x_pos - lowest + delta]).sort().values
    sort = _sort_values if logits.element_size() == 2 else _sort_logits
    return sort(logits, labels, lowest, knots, delta)


def _sort_values(logits: Tensor, labels: Tensor, lowest: Tensor, knots: Tensor, delta: float) -> HalfNegatives:
    bits = logits.view(torch.int16).int().add_(VALUES // 2)
    ignored, positive = labels < 0, labels > 0
    others = torch.cat([bits[ignored].flatten(), bits[positive].gather(1, labels[positive][:, None] - 1).flatten()])
    times = torch.bincount(bits.flatten(), minlength=VALUES) - torch.bincount(others, minlength=VALUES)
    present = times.nonzero()[:, 0]
    x = (present - VALUES // 2).to(torch.int16).view(logits.dtype).float()
    u, times = _from(lowest, x), times[present].double()
    buckets = torch.searchsorted(knots, u, right=True)
    counts, sums = (torch.bincount(buckets, w, len(knots) + 1) for w in (times, u * times))
    counts[0] = sums[0] = 0
    values = Negatives(x.view(1, -1, 1), buckets.view(1, -1, 1), lowest, knots, counts, sums, delta)
    return HalfNegatives(values, bits, present, ignored)


def _sort_logits(logits: Tensor, labels: Tensor, lowest: Tensor, knots: Tensor, delta: float) -> Negatives:
    scale = (CELLS - 3) / float(knots[-1] - knots[0])  # 2 delta at the least
    table = _table(knots, scale)
    weight, positive, column = pair_masks(labels, torch.float64)
    bound = torch.where(positive > 0, -torch.inf, torch.inf).double()
    buckets = torch.empty_like(logits, dtype=table.dtype)
    counts = torch.zeros(len(knots) + 1, dtype=torch.float64, device=logits.device)
    sums = counts.clone()
    for _, (x, out, ignored, here, own_bound), () in pieces(logits, buckets, weight == 0, column, bound, scratch=0):
        u = _from(lowest, x).masked_fill_(ignored, -torch.inf).scatter_reduce_(1, here, own_bound, "amin").flatten()
        found = table.index_select(0, _cells(u, knots[0], scale))
        near = (found < 0).nonzero()[:, 0]
        found[near] = torch.searchsorted(knots, u[near], right=True).to(found.dtype)
        out.copy_(found.view_as(out))
        counts += torch.bincount(found, minlength=len(counts))
        sums += torch.bincount(found, u, len(counts))
    counts[0] = sums[0] = 0
    return Negatives(logits, buckets, lowest, knots, counts, sums, delta)


def _from(lowest: Tensor, x: Tensor) -> Tensor:
    """Return x - lowest in float64, a copy."""
    return torch.sub(x.double(), lowest)


def _cells(u: Tensor, first: Tensor, scale: float) -> Tensor:
    """Return the cell of each u, int32: from 1 on over the knots, one below and one above them; it never falls in u."""
    return (u - first).mul_(scale).add_(1).clamp_(0, CELLS - 1).int()


def _table(knots: Tensor, scale: float) -> Tensor:
    """Return by cell the bucket of what lies in it, -1 where a knot does."""
    cells = _cells(knots, knots[0], scale)
    every = torch.arange(CELLS, dtype=torch.int32, device=knots.device)
    below = torch.searchsorted(cells, every, right=True)
    table = torch.where(below > torch.searchsorted(cells, every), -1, below)
    return table.to(torch.int16 if len(knots) < 2**15 else torch.int32)
