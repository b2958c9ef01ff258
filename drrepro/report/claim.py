"""What a claim is, and its verdict.

A claim holds when each of its parts does, does not hold when one does not, and is undecided otherwise; it is not run
where a part was not measured. A part holds when its interval lies wholly within the part's bounds and does not when it
lies wholly outside, at a level that Holm's procedure corrects for the number of parts: see `drrepro.report.decision`.
What an interval is of: see `drrepro.report.cells.estimate`.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

from drrepro.report.cells import Cell
from drrepro.report.decision import ALPHA, POWER, detectable, holm, p_value, what_decides
from drrepro.text import percent

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "does not hold", "undecided", "not run"
RULE = (
    "Holds: each part lies within its bounds; does not hold: one lies outside; undecided: neither. A part is decided "
    "where p is at most 0.05, corrected for the number of parts (Holm); the 95% interval beside it is not corrected. "
    "Intervals cover the choice of test images and the spread over seeds; of one seed the images alone, which decides "
    "nothing: another seed may train to something else. Differences are of runs with the same seed. To decide: the "
    f"smallest difference from the bound that so many runs see in {POWER:.0%} of cases, and the seeds that it takes if "
    "ours is the true value."
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
class Decision:
    """What became of a part: verdict and corrected p; where undecided, the difference seen and what would decide."""

    verdict: str
    p: float
    detectable: float = math.nan
    needs: str = ""


@dataclass(frozen=True)
class Claim:
    """What a paper says, where, and its parts as measured on a data set."""

    name: str
    place: str
    data: str
    sentence: str
    parts: list[Part]

    @cached_property
    def decisions(self) -> list[Decision]:
        """What became of each part, as one of them all."""
        alone = [p_value(part.cell, part.least, part.most) for part in self.parts]
        corrected = holm(alone)
        level = ALPHA / max(1, sum(p > ALPHA for p in corrected))  # of the step at which Holm's procedure stopped
        return [_decide(part, p, level) for part, p in zip(self.parts, corrected, strict=True)]

    @property
    def verdict(self) -> str:
        """Of all parts: see the module."""
        own = {decision.verdict for decision in self.decisions}
        return next((v for v in (NOT_RUN, FAILS, UNDECIDED) if v in own), HOLDS)


def _decide(part: Part, corrected: float, level: float) -> Decision:
    """Return what became of a part by its corrected p; one that is not decided would have to be at ``level``."""
    value = part.cell.value
    if math.isnan(value):
        return Decision(NOT_RUN, math.nan)
    if corrected <= ALPHA:
        return Decision(HOLDS if part.least <= value <= part.most else FAILS, corrected)
    distance = min(abs(value - part.least), abs(value - part.most))  # from the nearest bound
    needs = what_decides(part.cell, distance, level)
    p = corrected if part.cell.n > 1 else math.nan
    return Decision(UNDECIDED, p, detectable(part.cell, level), needs)
