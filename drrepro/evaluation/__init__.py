"""COCO and VOC metrics, and their sweep over score thresholds."""

from drrepro.evaluation.coco import evaluate_coco
from drrepro.evaluation.thresholds import threshold_sweep
from drrepro.evaluation.voc import evaluate_voc

__all__ = ["evaluate_coco", "evaluate_voc", "threshold_sweep"]
