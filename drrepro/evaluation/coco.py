"""COCO metrics: pycocotools matches once, numpy accumulates at any score threshold.

A detection's match depends only on detections with a higher score in its image and class, so what is matched above a
threshold is a prefix of what is matched above a lower one. Legend: N detections, K classes, I images,
4 area ranges (all, small, medium, large), 10 IoU thresholds (0.50:0.05:0.95), 101 recall thresholds.
"""

import contextlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from drrepro.errors import UsageError
from drrepro.files import read_json

GroundTruth = dict[str, Any]  # COCO format
Results = list[dict[str, Any]]  # COCO result format: image_id, category_id, bbox (x, y, w, h), score

Columns = tuple[npt.NDArray[Any], ...]  # scores, images, ranks, true, false: see Matches

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
AREAS = ("all", "small", "medium", "large")
RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Matches:
    """The outcome of matching, sorted by class, then by falling score, ties in the order of the images."""

    scores: npt.NDArray[np.float64]  # (N,)
    images: npt.NDArray[np.int32]  # (N,) place of the image in the ground truth's sorted ids
    ranks: npt.NDArray[np.int16]  # (N,) place among the detections of its image and class, 0 the best
    true: npt.NDArray[np.bool_]  # (4, 10, N) matched to an object that counts
    false: npt.NDArray[np.bool_]  # (4, 10, N) matched to nothing; neither: to be ignored
    starts: npt.NDArray[np.int64]  # (K + 1,) class k is starts[k]:starts[k + 1]
    positives: npt.NDArray[np.int32]  # (4, K, I) objects that count

    def check(self) -> None:
        """Raise ValueError for arrays, read from a file, that do not belong together."""
        n, (areas, classes, images) = len(self.scores), self.positives.shape
        kept, counts = (areas, 10, n), (areas, classes, images)
        shapes = {"scores": (n,), "images": (n,), "ranks": (n,), "true": kept, "false": kept, "starts": (classes + 1,)}
        kinds = {"scores": "f", "true": "b", "false": "b"}  # of numpy's dtypes; otherwise whole numbers
        for name, shape in {**shapes, "positives": counts}.items():
            array, kind = getattr(self, name), kinds.get(name, "i")
            if array.shape != shape or array.dtype.kind != kind:
                raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, not {kind} of {shape}")
        inside = not n or (self.images.min() >= 0 and self.images.max() < images)
        if not inside or self.starts[0] != 0 or self.starts[-1] != n or (np.diff(self.starts) < 0).any():
            raise ValueError("images or starts point outside")


def evaluate_coco(ground_truth: GroundTruth | str | Path, detections: Results | str | Path) -> dict[str, float]:
    """Return the twelve COCO numbers as fractions, by the names in METRICS; NaN where no object counts.

    ``ground_truth``: a dictionary in COCO format or its path; ``detections``: a list in COCO result format, which
    may be empty, or the path of one. Raises UsageError for detections of unknown images.
    """
    return summarize(match_detections(load(ground_truth), load(detections)))


def load(source: Any) -> Any:
    """Return json content from a path, or the content itself."""
    if not isinstance(source, str | Path):
        return source
    try:
        return read_json(Path(source))
    except (OSError, ValueError) as error:
        raise UsageError(f"{source}: not readable as json ({error})") from None


def match_detections(ground_truth: GroundTruth, detections: Results) -> Matches:
    """Match at all IoU thresholds and areas with pycocotools, silently."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = _index(ground_truth), _index(_as_annotations(ground_truth, detections))
        evaluator = COCOeval(truth, found, "bbox")
        evaluator.evaluate()
    classes, images = len(evaluator.params.catIds), len(evaluator.params.imgIds)
    by_class = np.array(evaluator.evalImgs, dtype=object).reshape(classes, len(AREAS), images)
    positives = np.zeros((len(AREAS), classes, images), dtype=np.int32)
    columns: list[Columns] = []
    for k in range(classes):
        own = []
        for i in (i for i in range(images) if by_class[k, 0, i] is not None):  # None: no object and no detection
            positives[:, k, i] = [np.count_nonzero(e["gtIgnore"] == 0) for e in by_class[k, :, i]]
            own.append(_columns(by_class[k, :, i], i))
        joined = _concatenate(own)
        order = np.argsort(-joined[0], kind="stable")
        columns.append(tuple(column[..., order] for column in joined))
    starts = np.cumsum([0, *(len(c[0]) for c in columns)])
    scores, image, rank, true, false = _concatenate(columns)
    return Matches(scores, image, rank, true, false, starts, positives)


def _columns(by_area: Iterable[dict[str, Any]], image: int) -> Columns:
    """Return scores, images, ranks, true and false of the detections of one class in one image."""
    areas = list(by_area)
    scores = np.asarray(areas[0]["dtScores"], dtype=np.float64)
    matched = np.stack([e["dtMatches"] for e in areas]) > 0
    ignored = np.stack([e["dtIgnore"] for e in areas]) > 0
    ranks = np.arange(len(scores), dtype=np.int16)
    return scores, np.full(len(scores), image, np.int32), ranks, matched & ~ignored, ~matched & ~ignored


def _concatenate(parts: list[Columns]) -> Columns:
    flags = np.zeros((len(AREAS), 10, 0), dtype=np.bool_)
    none = (np.zeros(0), np.zeros(0, np.int32), np.zeros(0, np.int16), flags, flags)
    return tuple(np.concatenate(column, axis=-1) for column in zip(none, *parts, strict=True))


def summarize(matches: Matches, threshold: float = -np.inf) -> dict[str, float]:
    """Return METRICS of the detections with a score above ``threshold``."""
    precision, recall = accumulate(matches, threshold, areas=4, limit=100)
    recalls = {limit: accumulate(matches, threshold, areas=1, limit=limit)[1] for limit in (1, 10)}
    values = [precision[0], precision[0, :, 0], precision[0, :, 5], precision[1], precision[2], precision[3]]
    values += [recalls[1][0], recalls[10][0], recall[0], recall[1], recall[2], recall[3]]
    means = [float(np.nanmean(v)) if np.isfinite(v).any() else float("nan") for v in values]
    return dict(zip(METRICS, means, strict=True))


def accumulate(
    matches: Matches, threshold: float, areas: int, limit: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the interpolated precision, averaged over RECALLS, and the recall, both (areas, K, 10).

    Only detections above ``threshold``, and the first ``limit`` of each image and class, count; NaN marks classes
    without an object in that area.
    """
    classes = len(matches.starts) - 1
    precision = np.full((areas, classes, 10), np.nan)
    recall = np.full((areas, classes, 10), np.nan)
    for k in range(classes):
        own = slice(matches.starts[k], matches.starts[k + 1])
        kept = own.start + np.flatnonzero((matches.scores[own] > threshold) & (matches.ranks[own] < limit))
        for a in range(areas):
            positives = matches.positives[a, k].sum()
            if positives:
                true = matches.true[a][:, kept].cumsum(axis=1, dtype=np.float64)
                false = matches.false[a][:, kept].cumsum(axis=1, dtype=np.float64)
                precision[a, k] = _average_precision(true, false, positives)
                recall[a, k] = true[:, -1] / positives if len(kept) else 0.0
    return precision, recall


def _average_precision(
    true: npt.NDArray[np.float64], false: npt.NDArray[np.float64], positives: int
) -> npt.NDArray[np.float64]:
    """Average the precision envelope at RECALLS; true and false are (10, n) cumulative counts."""
    envelope = np.maximum.accumulate((true / (true + false + np.spacing(1)))[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([envelope, np.zeros((len(true), 1))], axis=1)  # recalls never reached count 0
    return np.array(
        [p[np.searchsorted(t / positives, RECALLS, side="left")].mean() for p, t in zip(padded, true, strict=True)]
    )


def _index(content: GroundTruth) -> COCO:
    coco = COCO()
    annotations = [{"iscrowd": 0, **a} for a in content["annotations"]]  # copies: pycocotools writes into them
    coco.dataset = {**content, "annotations": annotations}
    coco.createIndex()
    return coco


def check_images(ground_truth: GroundTruth, detections: Results) -> None:
    """Raise UsageError when there are detections of images that the ground truth does not have."""
    unknown = {d["image_id"] for d in detections} - {image["id"] for image in ground_truth["images"]}
    if unknown:
        raise UsageError(f"{len(unknown)} detected images are not in the ground truth, image_id {min(unknown)} for one")


def _as_annotations(ground_truth: GroundTruth, detections: Results) -> GroundTruth:
    """Return detections in the form of annotations (what pycocotools' loadRes does, but it cannot take none)."""
    check_images(ground_truth, detections)
    annotations = [{**d, "id": i, "area": d["bbox"][2] * d["bbox"][3]} for i, d in enumerate(detections, start=1)]
    return {"images": ground_truth["images"], "categories": ground_truth["categories"], "annotations": annotations}
