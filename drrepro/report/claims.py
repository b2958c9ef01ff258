"""The claims of the paper, each with a verdict from the evidence at hand.

A claim holds when the 95% interval of each of its parts lies wholly within the part's bounds, does not hold when that
of one lies wholly outside, and is undecided otherwise; it is not run where a part was not measured. A part that has no
interval is undecided. What an interval is of: see `drrepro.report.evidence.estimate`.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from drrepro.experiments.plan import Plan
from drrepro.experiments.records import Record
from drrepro.report.evidence import LOSSES, TABLES, Estimate, Evidence, Floats, aligned, estimate
from drrepro.report.paper import SCALES, SETS, THRESHOLDS, paper_numbers

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "does not hold", "undecided", "not run"
RULE = (
    "Holds: the 95% interval of each part lies within its bounds; does not hold: one lies wholly outside; undecided: "
    "neither, or there is no interval. With one seed the interval covers the choice of test images alone, not "
    "that of another training run; with several, both. Differences are of runs with the same seed."
)
ABOVE_ZERO = math.ulp(0.0)  # the smallest number above 0
KEEPS = 0.5  # AP points that DR's AP may move by for "almost the same" [I]
DEGRADES = 3.0  # AP points that focal's must lose at least for "degrades significantly" [I]
ABOUT_TWO = (1.0, 3.0)  # [I]


@dataclass(frozen=True)
class Part:
    """A statistic of a claim and the bounds that it should lie within."""

    what: str
    estimate: Estimate
    least: float = -math.inf
    most: float = math.inf
    paper: float | None = None
    digits: int = 1

    @property
    def verdict(self) -> str:
        """Holds, does not hold, undecided, or not run."""
        low, high = self.estimate.low, self.estimate.high
        if math.isnan(self.estimate.value):
            return NOT_RUN
        if self.least <= low and high <= self.most:
            return HOLDS
        return FAILS if high < self.least or low > self.most else UNDECIDED  # both are false for NaN

    @property
    def bounds(self) -> str:
        """The bounds in words."""
        if self.least == ABOVE_ZERO:
            return "above 0"
        if math.isinf(self.most):
            return f"at least {self.least:g}"
        return f"at most {self.most:g}" if math.isinf(self.least) else f"{self.least:g} to {self.most:g}"


@dataclass(frozen=True)
class Claim:
    """What the paper says, where, and its parts as measured on a data set."""

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


def threshold_claim(evidence: Evidence) -> Claim:
    """Return whether DR's AP keeps from score threshold 0.05 to 0.5 while focal's falls."""
    published, curves = paper_numbers()["AP"], {}
    for loss in LOSSES:
        by_threshold = [evidence.measured(loss, threshold=t) for t in THRESHOLDS]
        seeds = set.intersection(*(set(own) for own in by_threshold))
        curves[loss] = [aligned([own[seed] for own in by_threshold]) for seed in sorted(seeds)]
    moved = estimate([np.ptp(curve, axis=0) for curve in curves["dr"]])
    lost = estimate([curve[0] - curve[-1] for curve in curves["focal"]])
    paper = {loss: np.array([published[1, loss, f"{t:g}"] for t in THRESHOLDS]) for loss in LOSSES}
    parts = [
        Part("AP that DR moves by", moved, most=KEEPS, paper=_beside(evidence, np.ptp(paper["dr"]))),
        Part(
            "AP that focal loses", lost, least=DEGRADES, paper=_beside(evidence, paper["focal"][0] - paper["focal"][-1])
        ),
    ]
    span = f"From score threshold {THRESHOLDS[0]} to {THRESHOLDS[-1]}"
    sentence = f"{span} the AP of DR stays almost the same while that of focal degrades."
    return Claim("threshold", "Table 1", evidence.plan.data, sentence, parts)


def separation_claim(evidence: Evidence) -> Claim:
    """Return whether the score densities of foreground and background lie further apart with DR than with focal.

    Each loss has its own prior and matcher, so this compares the detectors' scores as they are used, nothing else.
    Only totals over images are kept: intervals are of seeds alone.
    """
    # a secret test split has no densities
    own = {loss: {s: _separation(r) for s, r in evidence.of(loss).items() if r["densities"]} for loss in LOSSES}
    seeds = sorted(own["dr"].keys() & own["focal"].keys())
    parts = []
    statistics = (("mean score of foreground minus background", 1, 2), ("overlap of densities", -1, 3))
    for i, (name, sign, digits) in enumerate(statistics):
        pairs = [(own["dr"][s][i], own["focal"][s][i]) for s in seeds]
        means = " - ".join(f"{mean:.{digits}f}" for mean in np.mean(pairs, axis=0)[::sign]) if pairs else ""
        difference = estimate([np.array([sign * (dr - focal)]) for dr, focal in pairs])
        order = "DR - focal" if sign == 1 else "focal - DR"
        parts.append(Part(f"{name}, {order} {means}".rstrip(), difference, least=ABOVE_ZERO, digits=digits))
    sentence = "DR separates the scores of foreground and background further than focal."
    return Claim("separation", "Figure 1", evidence.plan.data, sentence, parts)


def scale_claim(evidence: Evidence) -> Claim:
    """Return whether DR's AP is above focal's at each input scale."""
    published = paper_numbers()["AP"]
    parts = [
        Part(
            f"DR - focal at {scale}",
            estimate(list(evidence.gains(scale).values())),
            least=ABOVE_ZERO,
            paper=_beside(evidence, published[2, "dr", scale] - published[2, "focal", scale]),
        )
        for scale in SCALES
    ]
    return Claim(
        "scale", "Table 2", evidence.plan.data, "The AP of DR is above that of focal at every input scale.", parts
    )


def average_claim(evidence: Evidence) -> Claim:
    """Return whether DR's AP is above focal's by about 2, here from 1 to 3, on average over the input scales."""
    published = paper_numbers()["AP"]
    gains = [evidence.gains(scale) for scale in SCALES]
    seeds = sorted(set.intersection(*(set(own) for own in gains)))
    mean = estimate([aligned([own[seed] for own in gains]).mean(axis=0) for seed in seeds])
    paper = np.mean([published[2, "dr", scale] - published[2, "focal", scale] for scale in SCALES])
    least, most = ABOUT_TWO
    part = Part("mean DR - focal", mean, least, most, _beside(evidence, paper))
    return Claim(
        "average",
        "Table 2",
        evidence.plan.data,
        "Over the input scales the AP of DR is above that of focal by about 2.",
        [part],
    )


def dataset_claim(evidence: Evidence) -> Claim:
    """Return whether DR's AP is above focal's on the second data set with the loss parameters of the first."""
    published = paper_numbers()["AP"]
    paper = published[3, "dr", "voc2007"] - published[3, "focal", "voc2007"]
    part = Part(
        "DR - focal", estimate(list(evidence.gains().values())), least=ABOVE_ZERO, paper=_beside(evidence, paper)
    )
    sentence = "On another data set, with the same loss parameters, the AP of DR is above that of focal."
    return Claim("dataset", "Table 3", evidence.plan.data, sentence, [part])


CLAIMS: dict[str, list[Callable[[Evidence], Claim]]] = {  # by the kind of plan
    "thresholds": [threshold_claim, separation_claim],
    "scales": [scale_claim, average_claim],
    "datasets": [dataset_claim],
}


def _beside(evidence: Evidence, published: float) -> float | None:
    """Return the paper's number for data that stand for the paper's."""
    return float(published) if evidence.plan.paper else None


def build_claims(evidence: list[Evidence]) -> list[Claim]:
    """Return each claim on each data set that its sweep was planned for, at least once."""
    claims = []
    for kind, functions in CLAIMS.items():
        not_run = Evidence(Plan(kind, kind, "", SETS[TABLES.index(kind) + 1], []), {}, {})
        own = [e for e in evidence if e.plan.kind == kind] or [not_run]
        claims += [function(e) for function in functions for e in own]
    return claims


def claim_table(claims: list[Claim]) -> pd.DataFrame:
    """Return the claims as text, a row a part; what is common to the parts of a claim stands in its first row."""
    rows = []
    for claim in claims:
        for i, part in enumerate(claim.parts):
            shown = [f"{claim.sentence} ({claim.place})", claim.data, claim.verdict] if i == 0 else [""] * 3
            e, digits = part.estimate, part.digits
            rows.append(
                {
                    **dict(zip(("claim", "data", "verdict"), shown, strict=True)),
                    "statistic": part.what,
                    "paper": "" if part.paper is None else f"{part.paper:.{digits}f}",
                    "should be": part.bounds,
                    "ours": "" if math.isnan(e.value) else f"{e.value:z.{digits}f}",
                    "95%": interval_text(e, digits),
                    "of": e.basis,
                    "seeds": str(e.n),
                }
            )
    return pd.DataFrame(rows)


def finding(claim: Claim) -> str:
    """Return a claim as a line of text."""
    parts = [_numbers(part) for part in claim.parts if not math.isnan(part.estimate.value)]
    return f"{claim.verdict}: {claim.sentence}" + (f" {'; '.join(parts)}" if parts else "")


def as_json(claims: list[Claim]) -> dict[str, Any]:
    """Return the rule and the claims as plain data; numbers that do not exist are null."""
    return {"rule": RULE, "claims": [_as_json(claim) for claim in claims]}


def _as_json(claim: Claim) -> dict[str, Any]:
    parts = []
    for part in claim.parts:
        numbers = {**asdict(part.estimate), "paper": part.paper}
        finite = {k: _rounded(v) if isinstance(v, float) else v for k, v in numbers.items()}
        parts.append({"statistic": part.what, **finite, "should_be": part.bounds, "verdict": part.verdict})
    head = {key: getattr(claim, key) for key in ("name", "place", "data", "sentence", "verdict")}
    return {**head, "parts": parts}


def _rounded(value: float) -> float | None:
    """Round to what does not depend on the CPU; json has no NaN."""
    return round(value, 6) if math.isfinite(value) else None


def interval_text(e: Estimate, digits: int = 1) -> str:
    """Return an interval as text, empty where there is none."""
    return "" if math.isnan(e.low) else f"{e.low:z.{digits}f}..{e.high:z.{digits}f}"


def _numbers(part: Part) -> str:
    e, digits = part.estimate, part.digits
    known = f"95% {interval_text(e, digits)}, " if e.basis else ""
    paper = "" if part.paper is None else f", paper {part.paper:.{digits}f}"
    return f"{part.what}: {e.value:z.{digits}f} ({known}{part.bounds}{paper})"


def _separation(record: Record) -> tuple[float, float]:
    """Return mean score of foreground minus background, and the overlap coefficient of the two densities."""
    foreground, background = (_normalised(record["densities"][name]) for name in ("foreground", "background"))
    centers = (np.arange(len(foreground)) + 0.5) / len(foreground)
    return float(((foreground - background) * centers).sum()), float(np.minimum(foreground, background).sum())


def _normalised(counts: list[int]) -> Floats:
    total: Floats = np.array(counts) / max(1, sum(counts))
    return total
