"""Table 1's sweep: every score threshold from one set of detections, matched once."""

from collections.abc import Iterable
from pathlib import Path

from drrepro.evaluation.coco import GroundTruth, Results, load, match_detections, summarize_at


def threshold_sweep(
    ground_truth: GroundTruth | str | Path, detections: Results | str | Path, thresholds: Iterable[float]
) -> dict[float, dict[str, float]]:
    """Return `evaluate_coco` of the detections with a score above each threshold; what is matched is matched once.

    Exact when ``detections`` are those of a threshold at or below the lowest asked for: see
    `drrepro.models.postprocess.suppress`.
    """
    matches, at = match_detections(load(ground_truth), load(detections)), list(thresholds)
    return dict(zip(at, summarize_at(matches, at), strict=True))
