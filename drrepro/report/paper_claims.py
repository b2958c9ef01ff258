"""The claims of the paper as functions of the evidence and a candidate: what it says of DR loss, said of any loss."""

from collections.abc import Callable

import numpy as np

from drrepro.report.cells import aligned, estimate
from drrepro.report.claim import ABOVE_ZERO, Claim, Part
from drrepro.report.evidence import Evidence
from drrepro.report.separation import separation_claim

KEEPS = 0.005  # AP that the candidate's may move by for "almost the same" [I]
DEGRADES = 0.03  # AP that the baseline's must lose at least for "degrades significantly" [I]
ABOUT_TWO = (0.01, 0.03)  # AP [I]


def threshold_claim(evidence: Evidence, candidate: str) -> Claim:
    """Return whether the candidate's AP keeps over the score thresholds while the baseline's falls."""
    study, (dr, focal) = evidence.study, evidence.study.short(candidate)
    curves, paper = {}, {}
    for arm in (candidate, study.baseline):
        by_threshold = [evidence.measured(arm, setting) for setting in study.settings]
        seeds = set.intersection(*(set(own) for own in by_threshold))
        curves[arm] = [aligned([own[seed] for own in by_threshold]) for seed in sorted(seeds)]
        paper[arm] = [_published(evidence, setting, arm) for setting in study.settings]
    moves = None if None in paper[candidate] else float(np.ptp(np.array(paper[candidate], dtype=float)))
    starts, *_, ends = paper[study.baseline]
    loses = None if starts is None or ends is None else starts - ends
    moved = estimate([np.ptp(curve, axis=0) for curve in curves[candidate]], moves)
    lost = estimate([curve[0] - curve[-1] for curve in curves[study.baseline]], loses)
    parts = [Part(f"AP that {dr} moves by", moved, most=KEEPS), Part(f"AP that {focal} loses", lost, least=DEGRADES)]
    first, *_, last = study.settings
    span = f"From score threshold {first} to {last}"
    sentence = f"{span} the AP of {dr} stays almost the same while that of {focal} degrades."
    return Claim("threshold", study.title, evidence.plan.data, sentence, parts)


def scale_claim(evidence: Evidence, candidate: str) -> Claim:
    """Return whether the candidate's AP is above the baseline's at each input scale."""
    dr, focal = evidence.study.short(candidate)
    sentence = f"The AP of {dr} is above that of {focal} at every input scale."
    return Claim("scale", evidence.study.title, evidence.plan.data, sentence, _gains(evidence, candidate))


def average_claim(evidence: Evidence, candidate: str) -> Claim:
    """Return whether the candidate's AP is above the baseline's by about 2 on average over the settings."""
    study, (dr, focal) = evidence.study, evidence.study.short(candidate)
    gains = [evidence.gains(candidate, setting) for setting in study.settings]
    seeds = sorted(set.intersection(*(set(own) for own in gains)))
    paper = [_published_gain(evidence, setting, candidate) for setting in study.settings]
    known = [gain for gain in paper if gain is not None]
    published = float(np.mean(known)) if known and len(known) == len(paper) else None
    mean = estimate([aligned([own[seed] for own in gains]).mean(axis=0) for seed in seeds], published)
    sentence = f"Over the input scales the AP of {dr} is above that of {focal} by about 2."
    part = Part(f"mean {dr} - {focal}", mean, *ABOUT_TWO)
    return Claim("average", study.title, evidence.plan.data, sentence, [part])


def dataset_claim(evidence: Evidence, candidate: str) -> Claim:
    """Return whether the candidate's AP is above the baseline's on the second data set, with unchanged parameters."""
    dr, focal = evidence.study.short(candidate)
    sentence = f"On another data set, with the same loss parameters, the AP of {dr} is above that of {focal}."
    gains = list(evidence.gains(candidate).values())
    paper = _published_gain(evidence, next(iter(evidence.study.settings), ""), candidate)
    part = Part(f"{dr} - {focal}", estimate(gains, paper), least=ABOVE_ZERO)
    return Claim("dataset", evidence.study.title, evidence.plan.data, sentence, [part])


def above_claim(evidence: Evidence, candidate: str) -> Claim:
    """Return whether the candidate's AP is above the baseline's at every setting, whatever these are."""
    study, (ours, theirs) = evidence.study, evidence.study.short(candidate)
    sentence = f"The AP of {ours} is above that of {theirs} at every setting of {study.head}."
    return Claim("above", study.title, evidence.plan.data, sentence, _gains(evidence, candidate))


CLAIMS: dict[str, Callable[[Evidence, str], Claim]] = {
    "threshold": threshold_claim,
    "separation": separation_claim,
    "scale": scale_claim,
    "average": average_claim,
    "dataset": dataset_claim,
    "above": above_claim,
}


def _gains(evidence: Evidence, candidate: str) -> list[Part]:
    """Return the gain over the baseline at each setting, which should be above 0."""
    ours, theirs = evidence.study.short(candidate)
    return [
        Part(
            f"{ours} - {theirs} at {setting}",
            estimate(list(evidence.gains(candidate, setting).values()), _published_gain(evidence, setting, candidate)),
            least=ABOVE_ZERO,
        )
        for setting in evidence.study.settings
    ]


def _published(evidence: Evidence, setting: str, arm: str) -> float | None:
    """Return the paper's AP for data that stand for the paper's."""
    return evidence.study.published_at(setting, arm, "AP") if evidence.plan.paper else None


def _published_gain(evidence: Evidence, setting: str, candidate: str) -> float | None:
    ours, theirs = (_published(evidence, setting, arm) for arm in (candidate, evidence.study.baseline))
    return None if ours is None or theirs is None else ours - theirs
