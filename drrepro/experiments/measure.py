"""What a finished run's detections are worth: the metrics, or for a secret test split the evaluation server's zip."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from drrepro.data.dataset import Dataset
from drrepro.evaluation.coco import GroundTruth, Matches, Results, accumulate, match_detections, mean, summarize_at
from drrepro.evaluation.densities import Densities, as_bins, separation
from drrepro.evaluation.evaluators import evaluator_of
from drrepro.evaluation.submission import write_submission
from drrepro.runs.kept import write_densities, write_detections, write_matches
from drrepro.runs.records import Density, Measured, Row
from drrepro.schema import Config

CURVE = [round(0.05 + 0.01 * i, 2) for i in range(91)]  # score thresholds of the AP curve


@dataclass(frozen=True)
class Scores:
    """Metrics at every NMS IoU and threshold, and of the run's own NMS IoU the AP curve and the matches."""

    metrics: list[Row]
    curve: list[Row]
    matches: Matches


def score(config: Config, truth: GroundTruth, results: dict[float, Results]) -> Scores:
    """Score detections by NMS IoU, the run's own among them; what is matched is matched once."""
    thresholds = sorted({*config.evaluation.score_thresholds, config.evaluation.score_threshold})
    metrics: list[Row] = []
    own = None
    for iou, found in results.items():
        matches = match_detections(truth, found)
        further = evaluator_of(config)(truth, found, thresholds)
        for threshold, numbers in zip(thresholds, summarize_at(matches, thresholds), strict=True):
            row = {"nms_iou": iou, "score_threshold": threshold, **numbers}
            metrics.append({**row, **further[threshold]})
        if iou == config.evaluation.nms_iou:
            own = matches
    assert own is not None
    return Scores(metrics, _curve(own, thresholds[0]), own)


def measure(
    config: Config, directory: Path, tested: Dataset, results: dict[float, Results], densities: Densities
) -> Measured:
    """Return metrics, curve and densities, and keep matches and detections.

    Of a split whose objects are secret nothing is known but ``submission``, the path of the zip that is written.
    """
    if not tested.annotated:
        path = _write_submission(config, directory, tested, results)
        return {"metrics": [], "curve": [], "densities": [], "submission": path}
    scores = score(config, tested.ground_truth(), results)
    write_matches(directory, scores.matches)
    write_detections(directory, results[config.evaluation.nms_iou])
    write_densities(directory, densities)
    totals = [_totals(*ious, own.sum(axis=1)) for ious, own in densities.counts.items()]
    return {"metrics": scores.metrics, "curve": scores.curve, "densities": totals, "submission": None}


def _totals(fg_iou: float, bg_iou: float, counts: npt.NDArray[np.int64]) -> Density:
    """Return what the record keeps of the densities of all images, (2, FINE)."""
    background, foreground = as_bins(counts).tolist()
    auc = float(separation(*counts)[2])
    return {"fg_iou": fg_iou, "bg_iou": bg_iou, "foreground": foreground, "background": background, "auc": auc}


def _curve(matches: Matches, lowest: float) -> list[Row]:
    """Return AP over CURVE, from the lowest threshold that was evaluated."""
    thresholds = [threshold for threshold in CURVE if threshold >= lowest]
    precision, _ = accumulate(matches, thresholds, areas=1)
    return [{"score_threshold": t, "AP": mean(own)} for t, own in zip(thresholds, precision, strict=True)]


def _write_submission(config: Config, directory: Path, tested: Dataset, results: dict[float, Results]) -> str:
    """Write the evaluation server's zip at the recipe's own thresholds, and return its path."""
    above = [row for row in results[config.evaluation.nms_iou] if row["score"] > config.evaluation.score_threshold]
    assert config.data.submission is not None
    algorithm = f"drrepro-{config.loss.name}-{config.input.scale}"
    images = [sample.id for sample in tested.samples]
    path = write_submission(directory, config.data.submission, algorithm, above, images, tested.category_ids)
    return str(path)
