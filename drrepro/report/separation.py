"""How far the scores of foreground lie above those of background: Figure 1 in numbers, as a claim."""

import numpy as np

from drrepro.evaluation.densities import STATISTICS, Floats, Matcher, gap_and_overlap
from drrepro.report.cells import estimate
from drrepro.report.claim import ABOVE_ZERO, Claim, Part
from drrepro.report.evidence import Evidence
from drrepro.runs.records import Density, Record

SHOWN = ((1, 2), (-1, 3), (1, 4))  # of each of STATISTICS: which sign is further apart, and digits


def matcher_of(density: Density) -> Matcher:
    """Return the matcher that labelled the scores."""
    return density["fg_iou"], density["bg_iou"]


def shared_matchers(records: list[Record]) -> list[Matcher]:
    """Return the matchers under which all of the records have densities, by their IoUs."""
    own = [{matcher_of(density) for density in record["densities"]} for record in records]
    return sorted(set.intersection(*own)) if own else []


def separation_claim(evidence: Evidence, candidate: str) -> Claim:
    """Return whether the scores of foreground and background lie further apart than with the baseline.

    One matcher labels the scores of both, and each that both were measured with is asked: which anchors count as
    background decides over the hardest of them.
    """
    arms, (ours, theirs) = (candidate, evidence.study.baseline), evidence.study.short(candidate)
    records = [[r for r in evidence.of(arm).values() if r["densities"]] for arm in arms]
    parts = []
    for matcher in shared_matchers([*records[0], *records[1]]) if all(records) else []:
        pairs = _pairs(evidence, arms, matcher)
        for i, name in enumerate(STATISTICS):
            what = f"{name}, background of IoU < {matcher[1]:g}"
            parts.append(_part(i, what, [pair[:, i] for pair in pairs], (ours, theirs)))
    if not parts:  # of a secret test split, or of records without a matcher in common
        parts = [Part(name, estimate([]), least=ABOVE_ZERO, is_ap=False) for name in STATISTICS]
    sentence = f"{ours} separates the scores of foreground and background further than {theirs}."
    return Claim("separation", "Figure 1", evidence.plan.data, sentence, parts)


def _pairs(evidence: Evidence, arms: tuple[str, str], matcher: Matcher) -> list[Floats]:
    """Return of each seed that both arms have (2, 3, 1 + B): STATISTICS of each, as measured and resampled."""
    one, other = ({s: _measured(evidence, r, matcher) for s, r in evidence.of(arm).items()} for arm in arms)
    seeds = sorted(one.keys() & other.keys())
    lengths = {seed: min(one[seed].shape[1], other[seed].shape[1]) for seed in seeds}
    return [np.stack([own[seed][:, : lengths[seed]] for own in (one, other)]) for seed in seeds]


def _measured(evidence: Evidence, record: Record, matcher: Matcher) -> Floats:
    """Return (3, 1 + B): as measured, and on each resample of the images; without ROC AUC (2, ...)."""
    (density,) = (own for own in record["densities"] if matcher_of(own) == matcher)
    value = gap_and_overlap(np.array(density["background"]), np.array(density["foreground"]))
    value = np.append(value, np.nan if density["auc"] is None else density["auc"])
    resamples = evidence.separated.get(record["id"], {}).get(matcher, np.empty((len(STATISTICS), 0)))
    return np.concatenate([value[:, None], resamples], axis=1)


def _part(i: int, what: str, pairs: list[Floats], names: tuple[str, str]) -> Part:
    """Return how much further apart ours are by the i-th of STATISTICS; ``pairs``: of each seed (2, 1 + B)."""
    sign, digits = SHOWN[i]
    differences = [sign * (ours - theirs) for ours, theirs in pairs]
    means = np.mean([pair[:, 0] for pair in pairs], axis=0)[::sign]
    order = " - ".join(names[::sign])
    shown = " - ".join(f"{mean:.{digits}f}" for mean in means)
    cell = estimate([own for own in differences if not np.isnan(own[0])])
    return Part(f"{what}, {order} {shown}", cell, least=ABOVE_ZERO, digits=digits, is_ap=False)
