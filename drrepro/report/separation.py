"""How far the scores of foreground lie above those of background: Figure 1 in numbers, as a claim."""

import numpy as np

from drrepro.evaluation.densities import STATISTICS, Floats, Matcher, gap_and_overlap
from drrepro.report.cells import estimate
from drrepro.report.claim import ABOVE_ZERO, Claim, Part
from drrepro.report.evidence import Evidence, same_images
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
    arms, names = (candidate, evidence.study.baseline), evidence.study.short(candidate)
    own = [{s: r for s, r in evidence.of(arm).items() if r["densities"]} for arm in arms]
    parts = []
    for matcher in shared_matchers([r for records in own for r in records.values()]) if all(own) else []:
        pairs = _pairs(evidence, own, matcher)
        for i, name in enumerate(STATISTICS):
            known = [pair[:, i] for pair in pairs if not np.isnan(pair[:, i, 0]).any()]
            if known:  # records of before have no ROC AUC
                parts.append(_part(i, f"{name}, {_matcher_name(matcher)}", known, names))
    if not parts:
        why = ", evaluated with no matcher in common" if all(own) else ""
        parts = [Part(f"{name}{why}", estimate([]), least=ABOVE_ZERO, is_ap=False) for name in STATISTICS]
    sentence = f"{names[0]} separates the scores of foreground and background further than {names[1]}."
    return Claim("separation", "Figure 1", evidence.plan.data, sentence, parts)


def _matcher_name(matcher: Matcher) -> str:
    fg_iou, bg_iou = matcher
    return f"background of IoU < {bg_iou:g}" + ("" if fg_iou == 0.5 else f", foreground from {fg_iou:g}")


def _pairs(evidence: Evidence, own: list[dict[int, Record]], matcher: Matcher) -> list[Floats]:
    """Return of each seed that both arms have (2, 3, 1 + B): STATISTICS of each, as measured and resampled.

    They are resampled only if the test images are the same.
    """
    pairs = []
    for seed in sorted(own[0].keys() & own[1].keys()):
        records = [records[seed] for records in own]
        found = [_measured(evidence, record, matcher) for record in records]
        length = min(one.shape[1] for one in found) if same_images(records) else 1
        pairs.append(np.stack([one[:, :length] for one in found]))
    return pairs


def _measured(evidence: Evidence, record: Record, matcher: Matcher) -> Floats:
    """Return (3, 1 + B): as measured, and on each resample of the images; ROC AUC NaN where the record has none."""
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
    return Part(f"{what}, {order} {shown}", estimate(differences), least=ABOVE_ZERO, digits=digits, is_ap=False)
