"""Numbers with what is known of them, as fractions until they are shown.

A measurement is an array: first the number itself, then what it is on each resampled set of test images, where the
run kept its matches. All runs share the draws, so a difference of two measurements is a paired one.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from drrepro.text import percent

Floats = npt.NDArray[np.float64]

SEED = 0  # of the draws of images
LEVEL = 0.95
ROUNDING = 1e-12  # of values that are the same: at a bound they count as below it
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
    # How far each resample of the images lies from the value.
    images: Floats = field(default_factory=lambda: np.empty(0), repr=False, compare=False)

    @property
    def difference(self) -> float:
        """The value minus the published one; NaN where either is unknown."""
        return self.value - (NAN if self.published is None else self.published)

    def percent(self) -> "Cell":
        """Return the cell in per cent."""
        published = None if self.published is None else percent(self.published)
        value, sd, low, high = map(percent, (self.value, self.sd, self.low, self.high))
        return replace(self, value=value, sd=sd, low=low, high=high, published=published, images=100 * self.images)

    def below(self, x: float) -> float:
        """Return the probability that these seeds put on a mean below ``x``.

        It is the mean over the resamples of the images: of each the mass of its value plus Student's t (n - 1 degrees
        of freedom) times sd / sqrt(n), which stands for the seeds; of a single seed its value alone.
        """
        left = x - self.value - self._images
        if not self.sd > 0:
            return float(np.mean(left > -ROUNDING))
        return float(stdtr(self.n - 1, left * (math.sqrt(self.n) / self.sd)).mean())

    def quantile(self, q: float) -> float:
        """Return what `below` has probability ``q`` of."""
        if not self.sd > 0:
            return self.value + float(np.percentile(self._images, 100 * q))
        step = float(stdtrit(self.n - 1, q)) * self.sd / math.sqrt(self.n)
        ends = self.value + step + np.array([self._images.min(), self._images.max()])
        room = 1e-9 * (1 + np.abs(ends).max())  # where all resamples are one
        found: float = brentq(lambda x: self.below(x) - q, ends[0] - room, ends[1] + room)
        return found

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the interval between the quantiles that leave as much on either side."""
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)

    @property
    def _images(self) -> Floats:
        known = self.images[~np.isnan(self.images)]  # a resample without any object tells nothing
        return known if len(known) else np.zeros(1)


def estimate(measured: list[Floats], published: float | None = None) -> Cell:
    """Return what the measurements of n seeds say of their mean: see `Cell.below`."""
    cell = replace(mean_of(measured), published=published)
    low, high = cell.interval() if cell.basis else (NAN, NAN)
    return replace(cell, low=low, high=high)


def mean_of(measured: list[Floats]) -> Cell:
    """Return what the measurements of n seeds say of their mean, without its interval, which takes most of the time."""
    n = len(measured)
    if not measured:
        return Cell(NAN, NAN, 0, NAN, NAN, "")
    rows = aligned(measured)
    value, sd = float(rows[:, 0].mean()), float(rows[:, 0].std(ddof=1)) if n > 1 else NAN
    basis = ["images"] * (rows.shape[1] > 1) + ["seeds"] * (n > 1)
    return Cell(value, sd, n, NAN, NAN, " and ".join(basis), images=_of_images(rows[:, 1:] - rows[:, :1]))


def _of_images(errors: Floats) -> Floats:
    """Return by resample what the images, the same for all seeds, add to the error of the mean; ``errors`` (n, B).

    AP of a resample is too high on average, since images that are drawn twice agree with themselves: the errors are
    centred, or the interval would lie as much too high as the bias is. Of what resampling shows, a part is each seed's
    own: how well that detector does on these very images. The spread over the seeds has it already. What is common to
    them is the covariance between seeds, so the mean of ``errors`` is shrunk to that variance.
    """
    if errors.shape[1] == 0:
        return errors.mean(axis=0)  # type: ignore[no-any-return]
    mean: Floats = errors.mean(axis=0)
    mean = mean - np.nanmean(mean)
    if len(errors) == 1:
        return mean
    whole, (common, _) = float(np.nanvar(mean)), images_and_own(errors)
    shrunk: Floats = mean * (math.sqrt(common / whole) if whole else 1.0)
    return shrunk


def images_and_own(errors: Floats) -> tuple[float, float]:
    """Return the variances over resamples that are common to n seeds, and of each seed its own; ``errors`` (n, B)."""
    n, whole, each = len(errors), float(np.nanvar(errors.mean(axis=0))), float(np.nanvar(errors, axis=1).mean())
    common = max(0.0, (n * whole - each) / (n - 1))
    return common, max(0.0, each - common)


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
