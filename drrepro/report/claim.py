"""What a claim is, and its verdict.

A claim holds when the 95% interval of each of its parts lies wholly within the part's bounds, does not hold when that
of one lies wholly outside, and is undecided otherwise; it is not run where a part was not measured. A part that has no
interval is undecided. What an interval is of: see `drrepro.report.cells.estimate`.
"""

import math
from dataclasses import dataclass, replace

from drrepro.report.cells import Cell
from drrepro.text import percent

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "does not hold", "undecided", "not run"
RULE = (
    "Holds: the 95% interval of each part lies within its bounds; does not hold: one lies wholly outside; undecided: "
    "neither, or there is no interval. With one seed the interval covers the choice of test images alone, not "
    "that of another training run; with several, both. Differences are of runs with the same seed."
)
ABOVE_ZERO = math.ulp(0.0)  # the smallest number above 0


@dataclass(frozen=True)
class Part:
    """A statistic of a claim and the bounds that it should lie within; ``cell.published`` is the paper's number."""

    what: str
    cell: Cell
    least: float = -math.inf
    most: float = math.inf
    digits: int = 1
    is_ap: bool = True  # shown in per cent

    @property
    def verdict(self) -> str:
        """Holds, does not hold, undecided, or not run."""
        low, high = self.cell.low, self.cell.high
        if math.isnan(self.cell.value):
            return NOT_RUN
        if self.least <= low and high <= self.most:
            return HOLDS
        return FAILS if high < self.least or low > self.most else UNDECIDED  # both are false for NaN

    def shown(self) -> "Part":
        """Return the part as it is shown: AP in per cent."""
        if not self.is_ap:
            return self
        least = self.least if self.least == ABOVE_ZERO else percent(self.least)
        return replace(self, cell=self.cell.percent(), least=least, most=percent(self.most), is_ap=False)

    @property
    def bounds(self) -> str:
        """The bounds in words, as they are shown."""
        shown = self.shown()
        if shown.least == ABOVE_ZERO:
            return "above 0"
        if math.isinf(shown.most):
            return f"at least {shown.least:g}"
        return f"at most {shown.most:g}" if math.isinf(shown.least) else f"{shown.least:g} to {shown.most:g}"


@dataclass(frozen=True)
class Claim:
    """What a paper says, where, and its parts as measured on a data set."""

    name: str
    place: str
    data: str
    sentence: str
    parts: list[Part]

    @property
    def verdict(self) -> str:
        """Of all parts: see the module."""
        own = {part.verdict for part in self.parts}
        return next((v for v in (NOT_RUN, FAILS, UNDECIDED) if v in own), HOLDS)
