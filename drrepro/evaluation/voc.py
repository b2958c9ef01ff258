"""The VOC development kit's AP at IoU 0.5; 'difficult' objects are neither found nor missed."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.mask import iou as box_iou

from drrepro.evaluation.coco import GroundTruth, Results, check_images, load

VOC_METRICS = ("AP50_2007", "AP50_2010")


@dataclass(frozen=True)
class VocMatches:
    """For each class its detections by falling score: (scores, true, false), and the number of its objects."""

    classes: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]
    positives: list[int]


def evaluate_voc(ground_truth: GroundTruth | str | Path, detections: Results | str | Path) -> dict[str, float]:
    """Return AP50_2007 (11 points) and AP50_2010 (all points) as fractions, the means over classes with objects.

    Arguments as for `evaluate_coco`; objects with ``iscrowd`` 1 are the difficult ones.
    """
    return summarize_voc(match_voc(load(ground_truth), load(detections)))


def match_voc(ground_truth: GroundTruth, detections: Results) -> VocMatches:
    """Match each detection to the object that it overlaps most; each object is found once, by the best score."""
    truth, found = _by_class_and_image(ground_truth["annotations"]), _by_class_and_image(detections)
    check_images(ground_truth, detections)
    place = {image["id"]: i for i, image in enumerate(ground_truth["images"])}
    classes, positives = [], []
    for category in sorted(c["id"] for c in ground_truth["categories"]):
        objects = truth[category]
        parts = [(np.zeros(0), np.zeros(0, np.bool_), np.zeros(0, np.bool_))]
        for image in sorted(found[category], key=place.__getitem__):
            parts.append(_match_image(found[category][image], objects.get(image, [])))
        scores, true, false = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(-scores, kind="stable")
        classes.append((scores[order], true[order], false[order]))
        positives.append(sum(not o.get("iscrowd") for own in objects.values() for o in own))
    return VocMatches(classes, positives)


def summarize_voc(matches: VocMatches, threshold: float = -np.inf) -> dict[str, float]:
    """Return VOC_METRICS of the detections with a score above ``threshold``; NaN where there is no object."""
    values = []
    for (scores, true, false), positives in zip(matches.classes, matches.positives, strict=True):
        if positives:
            kept = scores > threshold
            tp, fp = true[kept].cumsum(), false[kept].cumsum()
            recall, precision = tp / positives, tp / np.maximum(tp + fp, 1)
            values.append((_eleven_points(recall, precision), _all_points(recall, precision)))
    means = np.mean(values, axis=0).tolist() if values else [float("nan")] * 2
    return dict(zip(VOC_METRICS, means, strict=True))


def _match_image(
    detections: Results, objects: Results
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    ordered = sorted(detections, key=lambda d: -d["score"])
    true, false = np.zeros(len(ordered), np.bool_), np.ones(len(ordered), np.bool_)
    if objects:
        overlaps = box_iou([d["bbox"] for d in ordered], [o["bbox"] for o in objects], [0] * len(objects))
        taken: set[int] = set()
        for i, (best, overlap) in enumerate(zip(overlaps.argmax(axis=1).tolist(), overlaps.max(axis=1), strict=True)):
            if overlap < 0.5:
                continue
            if objects[best].get("iscrowd"):
                false[i] = False
            elif best not in taken:
                taken.add(best)
                true[i], false[i] = True, False
    return np.array([d["score"] for d in ordered], dtype=np.float64), true, false


def _eleven_points(recall: npt.NDArray[np.float64], precision: npt.NDArray[np.float64]) -> float:
    # np.arange, with its 0.30000000000000004, as every implementation that numbers were published with has it
    return float(np.mean([precision[recall >= t].max(initial=0.0) for t in np.arange(0.0, 1.1, 0.1)]))


def _all_points(recall: npt.NDArray[np.float64], precision: npt.NDArray[np.float64]) -> float:
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * envelope).sum())


def _by_class_and_image(annotations: list[dict[str, Any]]) -> defaultdict[int, dict[int, Results]]:
    groups: defaultdict[int, dict[int, Results]] = defaultdict(dict)
    for annotation in annotations:
        groups[annotation["category_id"]].setdefault(annotation["image_id"], []).append(annotation)
    return groups
