"""Losses that rank the positives of a pass above its negatives, pair by pair, by an error-driven update.

H(x_j - x_i), a step smoothed over 2 delta, says how far j ranks above i; its sum over j is the rank of i. The update is
in place of a gradient: what a positive i is wrong by is added to its logit and taken from those that rank above it,
each in proportion to H. So ``accumulate`` and ranks change these losses: they rank the images of one pass of one rank.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from drrepro.losses.contract import ClassificationLoss
from drrepro.losses.pairs import sort_negatives
from drrepro.losses.precomputed import Precomputed
from drrepro.losses.stream import check, check_ious, compute_dtype, finite, positive_places
from drrepro.schema import LossConfig

PAIRS = 2**20  # of positives, at once


class RankedLoss(ClassificationLoss):
    """A mean over positives; 0 without any. A GPU waits for their number, and whether all logits are finite."""

    delta: float

    def errors(self, x_pos: Tensor, above: Tensor, ious: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return by positive, (P,) float64: its error, what the negatives above it share of it, and its own update.

        x_pos (P,) float64; above (P,) float64: sum of H over negatives; ious (P,) float64 where the loss needs them.
        """
        raise NotImplementedError

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, logits: Tensor, labels: Tensor, ious: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar: float64 for float64 logits, else float32.

        logits (B, A, K) floating point; labels (B, A) int64: -1 ignored, 0 background, 1..K the class; ious (B, A) of
        predicted and matched boxes, where the loss needs them.
        """
        check(logits, labels)
        if self.needs_ious:
            check_ious(ious, labels)
        return Precomputed.apply(logits, partial(self._value_and_update, labels, ious))  # type: ignore[no-any-return]

    def _value_and_update(self, labels: Tensor, ious: Tensor | None, logits: Tensor) -> tuple[Tensor, Tensor]:
        dtype = compute_dtype(logits)
        places = positive_places(labels)
        x_pos, own_ious = logits[places].double(), None if ious is None else ious[places[:2]].double()
        known = finite(logits) and (own_ious is None or finite(own_ious))
        if not known or not len(x_pos):
            value = 0.0 if known else torch.nan
            return x_pos.new_tensor(value, dtype=dtype), torch.full_like(logits, value, dtype=dtype)
        negatives = sort_negatives(logits, labels, x_pos, self.delta)
        above = negatives.above(x_pos)
        error, shared, own = self.errors(x_pos, above, own_ious)
        weights = torch.where(above > 0, shared / above, 0.0) / len(x_pos)
        update = negatives.spread(x_pos, weights)
        update[places] = (own / len(x_pos)).to(dtype)
        return error.mean().to(dtype), update

    def _rows(self, x_pos: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield H(x_j - x_i) of positives, a block of rows i (r, P) at a time."""
        rows = max(1, PAIRS // len(x_pos))
        for start in range(0, len(x_pos), rows):
            i = slice(start, start + rows)
            yield i, ((x_pos - x_pos[i, None]) / (2 * self.delta) + 0.5).clamp_(0, 1)


@dataclass
class APParameters(LossConfig):
    """That of the authors' release."""

    delta: float = 1.0


class APLoss(RankedLoss):
    """1 - AP: the mean over positives i of sum_j L_ij, L_ij = H(x_j - x_i) / rank(i), j the negatives, as interpolated.

    Chen et al., *Towards Accurate One-Stage Object Detection with AP-Loss* (CVPR 2019). rank(i) = 1 + sum of H over all
    others. As AP is interpolated, a precision is the largest of those at its rank and at lower scores. The box term is
    the protocol's, not the paper's.
    """

    Parameters = APParameters

    def __init__(self, delta: float = APParameters.delta) -> None:
        """Raise ValueError for a delta that is not positive."""
        super().__init__()
        self.delta = _positive(delta)

    def errors(self, x_pos: Tensor, above: Tensor, ious: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return 1 - precision, all of it shared by the negatives above."""
        among = torch.cat([H.sum(1) for _, H in self._rows(x_pos)]) + 0.5  # with itself, H(0) = 1/2, a rank from 1
        order = x_pos.argsort()
        best = (among / (among + above))[order].cummax(0).values
        error = torch.empty_like(best).scatter_(0, order, 1 - best)
        return error, error, -error


@dataclass
class RankSortParameters(LossConfig):
    """That of the paper."""

    delta: float = 0.5


class RankSortLoss(RankedLoss):
    """The mean over positives of their ranking error and their sorting error, less the latter's target.

    Oksuz et al., *Rank & Sort Loss for Object Detection and Instance Segmentation* (ICCV 2021). Ranking error (eq. 7):
    of all that rank above a positive, itself included, the share of negatives. Sorting error (eq. 7): of the positives
    among these the mean of 1 - IoU; its target (eq. 8): that over those of no lower IoU. The paper's box loss and its
    balance with this loss are not taken over: the box term is the protocol's.
    """

    Parameters = RankSortParameters
    needs_ious = True

    def __init__(self, delta: float = RankSortParameters.delta) -> None:
        """Raise ValueError for a delta that is not positive."""
        super().__init__()
        self.delta = _positive(delta)

    def errors(self, x_pos: Tensor, above: Tensor, ious: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return ranking + sorting error: the former shared by the negatives, the latter by positives of lower IoU."""
        assert ious is not None
        ranking, sorting, update = torch.empty_like(x_pos), torch.empty_like(x_pos), torch.zeros_like(x_pos)
        for i, H in self._rows(x_pos):
            among, wrong = H.sum(1), H * (ious < ious[i, None])
            right = H - wrong  # with itself, so never 0
            ranking[i] = above[i] / (among + above[i])
            error = (H @ (1 - ious)) / among - (right @ (1 - ious)) / right.sum(1)
            missorted = wrong.sum(1)
            sorting[i] = torch.where(missorted > 0, error, 0.0)
            update += torch.where(missorted > 0, sorting[i] / missorted, 0.0) @ wrong
        return ranking + sorting, ranking, update - ranking - sorting


def _positive(delta: float) -> float:
    if not delta > 0:
        raise ValueError(f"delta must be positive, got {delta}")
    return delta
