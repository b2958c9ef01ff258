"""How a claim's parts are decided: p values, corrected for their number, and what it would take to decide the others.

A part is a mean over seeds with bounds that it should lie within. Its p value is the smallest alpha whose (1 - alpha)
interval lies wholly on one side: within the bounds, or outside. Holm's procedure corrects those of a claim for being
several: the chance that any of them is wrongly decided stays at 5%.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import chdtri, ndtr

from drrepro.report.cells import Cell

ALPHA = 0.05
POWER = 0.8  # the chance of seeing a difference that is called seen
MOST_SEEDS = 1000  # that are thought of
NODES = 40  # of the spread that seeds may have
THIN = 10  # resamples that one stands for, where many quantiles are asked for


@dataclass(frozen=True)
class Bounds:
    """What a statistic should lie within."""

    least: float = -math.inf
    most: float = math.inf

    def distance(self, value: float) -> float:
        """Return how far a value lies from the nearest bound."""
        return min(abs(value - self.least), abs(value - self.most))


def p_value(cell: Cell, bounds: Bounds) -> float:
    """Return the smallest alpha at which the cell's interval lies within the bounds, or outside; 1 where there is none.

    A single seed decides nothing, whatever the images say: another one may train to something else.
    """
    if cell.n < 2 or math.isnan(cell.value):
        return 1.0
    below, above = cell.below(bounds.least), 1 - cell.below(bounds.most)
    within, outside = 2 * max(below, above), 2 * min(1 - below, 1 - above)
    return min(within, outside, 1.0)


def holm(p_values: list[float]) -> list[float]:
    """Return p values corrected for their number: each at most ALPHA is decided (Holm, 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def detectable(cell: Cell, alpha: float, n: int | None = None) -> float:
    """Return the smallest difference from a bound that ``n`` seeds, by default those of the cell, see with POWER.

    See: decide at ``alpha``, by the spread that they will have, of which that of the cell is taken for the true one.
    NaN where it is not known.
    """
    n = n or cell.n
    if cell.n < 2 or n < 2 or math.isnan(cell.sd):
        return math.nan
    images = np.sort(cell.images[~np.isnan(cell.images)])[THIN // 2 :: THIN]  # enough for a quantile
    error = math.hypot(cell.sd / math.sqrt(n), float(images.std()) if len(images) else 0.0)
    spreads = cell.sd * np.sqrt(chdtri(n - 1, 1 - (np.arange(NODES) + 0.5) / NODES) / (n - 1))
    reaches = np.array([_reach(replace(cell, sd=float(sd), n=n, images=images), alpha) for sd in spreads])
    if not error:
        return float(reaches.max())

    def power(difference: float) -> float:
        return float(ndtr((difference - reaches) / error).mean())

    highest = float(reaches.max()) + 10 * error
    found: float = brentq(lambda difference: power(difference) - POWER, -10 * error, highest)
    return found


def _reach(cell: Cell, alpha: float) -> float:
    """Return half the width of the interval."""
    low, high = cell.interval(1 - alpha)
    return (high - low) / 2


def seeds_for(cell: Cell, difference: float, alpha: float) -> int | None:
    """Return how many seeds see a difference from a bound; None where MOST_SEEDS do not, or the spread is not known.

    The spread over seeds and images is taken to be what it is here.
    """
    fewest, enough = 1, MOST_SEEDS
    if not detectable(cell, alpha, enough) <= difference:
        return None
    while enough - fewest > 1:
        middle = (fewest + enough) // 2
        fewest, enough = (fewest, middle) if detectable(cell, alpha, middle) <= difference else (middle, enough)
    return enough


def what_decides(cell: Cell, difference: float, alpha: float) -> str:
    """Return what it takes to see a difference from a bound, in words."""
    if cell.n < 2:
        return "more seeds"
    seeds = seeds_for(cell, difference, alpha)
    if seeds is not None:
        return f"{seeds} seeds"
    images = replace(cell, sd=0.0)
    return "more test images" if _reach(images, alpha) > difference else f"more than {MOST_SEEDS} seeds"
