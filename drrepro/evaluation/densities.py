"""The scores of foreground and of background, per image: what Figure 1 shows, and how far the two lie apart.

A score is an (anchor, class). Which of them are foreground depends on the matcher that labels the anchors; each recipe
trains with its own, so detectors are compared under one matcher for both, and under each of the two.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 200  # over scores from 0 to 1, as Figure 1 shows them
TAIL = 100  # further edges in the first and in the last of them, where a sigmoid puts nearly all that it is sure of
FARTHEST = 18.0  # |logit| of the outermost edge: beyond, float32 knows no other score than 1

_low = 1 / (1 + np.exp(np.linspace(FARTHEST, np.log(BINS - 1), TAIL, endpoint=False)))
EDGES = np.concatenate([_low, np.arange(1, BINS) / BINS, 1 - _low[::-1]])  # between the fine bins
FINE = len(EDGES) + 1
_STARTS = np.concatenate([[0], np.arange(TAIL + 1, TAIL + BINS)])  # of BINS among the fine ones

Floats = npt.NDArray[np.float64]
Matcher = tuple[float, float]  # fg_iou and bg_iou
STATISTICS = ("mean score of foreground minus background", "overlap of densities", "ROC AUC")


@dataclass(frozen=True)
class Densities:
    """By matcher how many scores of background and of foreground lie in each fine bin: (2, I, FINE).

    Images are in the order of their ids, as they are in `drrepro.evaluation.coco.Matches`.
    """

    counts: dict[Matcher, npt.NDArray[np.int32]]

    @property
    def images(self) -> int:
        """How many there are."""
        return int(next(iter(self.counts.values())).shape[1])

    def check(self) -> None:
        """Raise ValueError for arrays, read from a file, that are none of these."""
        shapes = {own.shape for own in self.counts.values()}
        if len(shapes) != 1 or any(len(s) != 3 or (s[0], s[2]) != (2, FINE) for s in shapes):
            raise ValueError(f"shapes {shapes} are not those of densities")
        if any(own.dtype != np.int32 or (own < 0).any() for own in self.counts.values()):
            raise ValueError("densities are not counts")


def as_bins(counts: npt.NDArray[np.number]) -> npt.NDArray[np.number]:
    """Return (..., BINS) of (..., FINE)."""
    summed: npt.NDArray[np.number] = np.add.reduceat(counts, _STARTS, axis=-1)
    return summed


def gap_and_overlap(background: npt.NDArray[np.number], foreground: npt.NDArray[np.number]) -> Floats:
    """Return (2, ...): the first two of STATISTICS of histograms (..., BINS); NaN where one of the two is empty."""
    centers = (np.arange(BINS) + 0.5) / BINS
    below, above = _shares(background), _shares(foreground)
    gap = (above - below) @ centers
    overlap = np.minimum(above, below).sum(axis=-1)
    return np.stack([gap, overlap])


def separation(background: npt.NDArray[np.number], foreground: npt.NDArray[np.number]) -> Floats:
    """Return (3, ...): STATISTICS of histograms (..., FINE); NaN where one of the two is empty.

    The mean and the overlap coefficient are those of Figure 1's bins. ROC AUC is how often a score of foreground is
    above one of background; two in the same fine bin count half.
    """
    below, above = _shares(background), _shares(foreground)
    auc = (above * (below.cumsum(axis=-1) - below / 2)).sum(axis=-1)
    return np.concatenate([gap_and_overlap(as_bins(background), as_bins(foreground)), auc[None]])


def _shares(counts: npt.NDArray[np.number]) -> Floats:
    with np.errstate(invalid="ignore"):
        shares: Floats = counts / counts.sum(axis=-1, keepdims=True)
    return shares


def resampled_separation(counts: npt.NDArray[np.int32], draws: npt.NDArray[np.integer]) -> Floats:
    """Return (3, B): STATISTICS of each resample of the images, ``draws`` (B, I) from `draw_counts`.

    ``counts`` (2, I, FINE). Raises ValueError unless there is a count for each image.
    """
    if draws.shape[1] != counts.shape[1]:
        raise ValueError(f"draws are of {draws.shape[1]} images, the densities of {counts.shape[1]}")
    weights = draws.astype(np.float64)
    return separation(*(weights @ own for own in counts))
