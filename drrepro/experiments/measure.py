"""What a finished run's detections are worth: the metrics, or for a secret test split the evaluation server's zip."""

from pathlib import Path
from typing import Any

import numpy as np

from drrepro.data.dataset import Dataset
from drrepro.evaluation.coco import Matches, Results, accumulate, match_detections, summarize
from drrepro.evaluation.densities import Densities
from drrepro.evaluation.submission import write_submission
from drrepro.evaluation.voc import match_voc, summarize_voc
from drrepro.experiments.records import write_detections, write_matches
from drrepro.schema import Config

UNKNOWN: dict[str, Any] = {"metrics": [], "curve": [], "densities": None}  # where the objects are secret
CURVE = [round(0.05 + 0.01 * i, 2) for i in range(91)]  # score thresholds of the AP curve


def measure(
    config: Config, directory: Path, tested: Dataset, results: dict[float, Results], densities: Densities
) -> dict[str, Any]:
    """Return metrics at every NMS IoU and threshold, curve and densities, and keep matches and detections.

    Of a split whose objects are secret nothing is known but ``submission``, the path of the zip that is written.
    """
    if not tested.annotated:
        return {**UNKNOWN, "submission": _write_submission(config, directory, tested, results)}
    truth = tested.ground_truth()
    metrics: list[dict[str, Any]] = []
    curve: list[dict[str, float]] = []
    for iou, found in results.items():
        matches = match_detections(truth, found)
        voc = match_voc(truth, found) if config.data.format == "voc" else None
        for threshold in sorted({*config.evaluation.score_thresholds, config.evaluation.score_threshold}):
            row = {"nms_iou": iou, "score_threshold": threshold, **summarize(matches, threshold)}
            metrics.append({**row, **(summarize_voc(voc, threshold) if voc else {})})
        if iou == config.evaluation.nms_iou:
            curve = _curve(matches, metrics[0]["score_threshold"])
            write_matches(directory, matches)
            write_detections(directory, found)
    counts = {name: counts.tolist() for name, counts in vars(densities).items()}
    return {"metrics": metrics, "curve": curve, "densities": counts, "submission": None}


def _curve(matches: Matches, lowest: float) -> list[dict[str, float]]:
    """Return AP over CURVE, from the lowest threshold that was evaluated."""
    rows = []
    for threshold in CURVE:
        if threshold >= lowest:
            precision, _ = accumulate(matches, threshold, areas=1, limit=100)
            ap = float(np.nanmean(precision)) if np.isfinite(precision).any() else float("nan")
            rows.append({"score_threshold": threshold, "AP": ap})
    return rows


def _write_submission(config: Config, directory: Path, tested: Dataset, results: dict[float, Results]) -> str:
    """Write the evaluation server's zip at the recipe's own thresholds, and return its path."""
    above = [row for row in results[config.evaluation.nms_iou] if row["score"] > config.evaluation.score_threshold]
    assert config.data.submission is not None
    algorithm = f"drrepro-{config.loss.name}-{config.input.scale}"
    images = [sample.id for sample in tested.samples]
    path = write_submission(directory, config.data.submission, algorithm, above, images, tested.category_ids)
    return str(path)
