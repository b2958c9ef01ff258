"""Numbers with what is known of them, as fractions until they are shown.

A measurement is an array: first the number itself, then what it is on each resampled set of test images, where the
run kept its matches. All runs share the draws, so a difference of two measurements is a paired one.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from drrepro.evaluation.bootstrap import RESAMPLES, interval
from drrepro.text import percent

Floats = npt.NDArray[np.float64]

SEED = 0  # of the draws
PER_RESAMPLE = 100  # draws of Student's t with each resample
NAN = float("nan")


@dataclass(frozen=True)
class Cell:
    """The mean over n seeds, their standard deviation, and the 95% interval of the mean; NaN where unknown."""

    value: float
    sd: float
    n: int
    low: float
    high: float
    basis: str  # what the interval is of: images | seeds | images and seeds, or empty
    published: float | None = None

    @property
    def difference(self) -> float:
        """The value minus the published one; NaN where either is unknown."""
        return self.value - (NAN if self.published is None else self.published)

    def percent(self) -> "Cell":
        """Return the cell in per cent."""
        published = None if self.published is None else percent(self.published)
        value, sd, low, high = map(percent, (self.value, self.sd, self.low, self.high))
        return replace(self, value=value, sd=sd, low=low, high=high, published=published)


def estimate(measured: list[Floats], published: float | None = None) -> Cell:
    """Return what the measurements of n seeds say of their mean.

    One seed: the percentile interval over resampled images. Several: over resamples of the mean over the seeds, each
    with Student's t (n - 1 degrees of freedom) times sd / sqrt(n) added; without resamples that term alone.
    """
    n = len(measured)
    if not measured:
        return Cell(NAN, NAN, 0, NAN, NAN, "", published)
    rows = aligned(measured)
    mean, sd = rows.mean(axis=0), float(rows[:, 0].std(ddof=1)) if n > 1 else NAN
    resamples = mean[1:] if len(mean) > 1 else np.full(RESAMPLES, mean[0])
    basis = ["images"] * (len(mean) > 1) + ["seeds"] * (n > 1)
    if n > 1:
        t = np.random.default_rng(SEED).standard_t(n - 1, (PER_RESAMPLE, len(resamples)))
        resamples = (resamples + t * sd / np.sqrt(n)).ravel()
    low, high = interval(resamples) if basis else (NAN, NAN)
    return Cell(float(mean[0]), sd, n, low, high, " and ".join(basis), published)


def aligned(measured: list[Floats]) -> Floats:
    """Return measurements as rows: with their resamples if all have some, else the numbers alone."""
    length = min(len(one) for one in measured)
    return np.stack([one[:length] for one in measured])


def interval_text(cell: Cell, digits: int = 1) -> str:
    """Return the interval as text, empty where there is none."""
    return "" if math.isnan(cell.low) else f"{cell.low:z.{digits}f}..{cell.high:z.{digits}f}"


def spread_text(cell: Cell) -> str:
    """Return standard deviation and number of seeds as text, empty where there is no spread."""
    return "" if math.isnan(cell.sd) else f"{cell.sd:.1f} ({cell.n})"


def difference_text(cell: Cell) -> str:
    """Return the difference with its sign, empty where there is none."""
    return "" if math.isnan(cell.difference) else f"{cell.difference:+.1f}"
