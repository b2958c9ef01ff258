"""Which metrics a run has beside COCO's, which each has, since intervals and curves are of its matches."""

from collections.abc import Callable, Iterable

from drrepro.errors import UsageError
from drrepro.evaluation.coco import GroundTruth, Results
from drrepro.evaluation.voc import match_voc, summarize_voc
from drrepro.schema import Config

ByThreshold = dict[float, dict[str, float]]  # metrics as fractions by score threshold
Evaluator = Callable[[GroundTruth, Results, Iterable[float]], ByThreshold]


def coco(truth: GroundTruth, detections: Results, thresholds: Iterable[float]) -> ByThreshold:
    """Return nothing beside COCO's metrics."""
    return {threshold: {} for threshold in thresholds}


def voc(truth: GroundTruth, detections: Results, thresholds: Iterable[float]) -> ByThreshold:
    """Return the VOC development kit's AP50."""
    matches = match_voc(truth, detections)
    return {threshold: summarize_voc(matches, threshold) for threshold in thresholds}


EVALUATORS: dict[str, Evaluator] = {"coco": coco, "voc": voc}


def evaluator_of(config: Config) -> Evaluator:
    """Return the evaluator that a configuration asks for, by default that of the data's format, or COCO's.

    Raises UsageError, naming the key, for an unknown one.
    """
    own = config.data.format if config.data.format in EVALUATORS else "coco"
    name = config.evaluation.metric or own
    if name not in EVALUATORS:
        raise UsageError(f"evaluation.metric={name}: must be one of {', '.join(EVALUATORS)}")
    return EVALUATORS[name]
