"""How a claim's parts are decided: p values, corrected for their number, and what it would take to decide the others.

A part is a mean over seeds with bounds that it should lie within. Its p value is the smallest alpha whose (1 - alpha)
interval lies wholly on one side: within the bounds, or outside. Holm's procedure corrects those of a claim for being
several: the chance that any of them is wrongly decided stays at 5%.
"""

import math
from dataclasses import replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import chdtri, ndtr, stdtr, stdtrit

from drrepro.report.cells import Cell, Floats

ALPHA = 0.05
POWER = 0.8  # the chance of seeing a difference that is called seen
MOST_SEEDS = 1000  # that are thought of
NODES = 16  # of the distribution of the spread that seeds will have
POINTS = 32  # that stand for the resamples, where many quantiles are asked for
BISECTIONS = 30


def p_value(cell: Cell, least: float = -math.inf, most: float = math.inf) -> float:
    """Return the smallest alpha at which the cell's interval lies within its bounds, or outside; 1 where there is none.

    A single seed decides nothing, whatever the images say: another one may train to something else.
    """
    if cell.n < 2 or math.isnan(cell.value):
        return 1.0
    below, above = cell.below(least), 1 - cell.below(most)
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
    images = np.sort(cell.images[~np.isnan(cell.images)])
    images = images - images.mean() if len(images) else np.zeros(1)
    error = math.hypot(cell.sd / math.sqrt(n), float(images.std()))
    if not error:
        return 0.0
    share, weight = np.polynomial.legendre.leggauss(NODES)  # over the spread's distribution, from 0 to 1
    spreads = cell.sd * np.sqrt(chdtri(n - 1, (1 - share) / 2) / (n - 1))
    reaches = _reaches(np.quantile(images, (np.arange(POINTS) + 0.5) / POINTS), spreads / math.sqrt(n), n, alpha)

    def lacks(difference: float) -> float:
        """Return what the power at a difference exceeds `POWER` by."""
        return float(ndtr((difference - reaches) / error) @ weight) / 2 - POWER

    return float(brentq(lacks, -10 * error, float(reaches.max()) + 10 * error))


def _reaches(images: Floats, errors: Floats, n: int, alpha: float) -> Floats:
    """Return by standard error of the seeds how far the interval reaches on either side, on average, by bisection.

    As `Cell.interval`, of many cells at once: of each undecided part some hundred are asked for.
    """
    most = float(stdtrit(n - 1, 1 - alpha / 2)) * errors + np.abs(images).max()
    low: Floats = np.zeros_like(errors)
    high: Floats = most
    scale = np.maximum(errors, 1e-12)[:, None]
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        outside = [stdtr(n - 1, (sign * images - middle[:, None]) / scale).mean(axis=1) for sign in (-1, 1)]
        wide = np.mean(outside, axis=0) < alpha / 2
        low, high = np.where(wide, low, middle), np.where(wide, middle, high)
    return high


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
    low, high = replace(cell, sd=0.0).interval(1 - alpha)
    return "more test images" if (high - low) / 2 > difference else f"more than {MOST_SEEDS} seeds"
