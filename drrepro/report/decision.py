"""How a claim's parts are decided: p values, corrected for their number, and what it would take to decide the others.

A part is a mean over seeds with bounds that it should lie within. Its p value is the smallest alpha whose (1 - alpha)
interval lies wholly on one side: within the bounds, or outside. Holm's procedure corrects those of a claim for being
several: the chance that any of them is wrongly decided stays at 5%.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from drrepro.report.cells import Cell

ALPHA = 0.05
POWER = 0.8  # the chance of seeing a difference that is called seen
MOST_SEEDS = 1000  # that are thought of
Z = NormalDist().inv_cdf(POWER)


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

    See: decide at ``alpha``. NaN where the spread over seeds is not known.
    """
    n = n or cell.n
    if n < 2 or math.isnan(cell.sd):
        return math.nan
    low, high = cell.interval(1 - alpha, n)
    images = float(np.nanvar(cell.images)) if len(cell.images) else 0.0
    return (high - low) / 2 + Z * math.sqrt(cell.sd**2 / n + images)


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
