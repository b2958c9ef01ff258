"""COCO metrics: everything is matched once, then accumulated at any score threshold.

A detection's match depends only on detections with a higher score in its image and class, so what is matched above a
threshold is a prefix of what is matched above a lower one. Legend: N detections, K classes, I images, T thresholds,
4 area ranges (all, small, medium, large), 10 IoU thresholds (0.50:0.05:0.95), 101 recall thresholds.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drrepro.errors import UsageError
from drrepro.evaluation.matching import AREAS, IOUS, LIMIT, Objects, match, sort_detections, sort_objects
from drrepro.files import read_json

GroundTruth = dict[str, Any]  # COCO format
Results = list[dict[str, Any]]  # COCO result format: image_id, category_id, bbox (x, y, w, h), score

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
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
    """Match at all IoU thresholds and areas, as pycocotools does. Raises UsageError for detections of unknown images.

    What is of a category, or an annotation of an image, that the ground truth does not have is left out.
    """
    check_images(ground_truth, detections)
    classes, images = (_places(ground_truth[name]) for name in ("categories", "images"))
    objects = _objects(ground_truth["annotations"], classes, images)
    groups, rows = _groups(detections, classes, images)
    found = sort_detections(groups, _boxes(rows), _numbers(rows, "score"))
    true, false = match(found, objects)
    own_class, image = np.divmod(found.groups, max(len(images), 1))
    order = np.lexsort((-found.scores, own_class))
    starts = np.searchsorted(own_class, np.arange(len(classes) + 1))
    return Matches(
        found.scores[order],
        image[order].astype(np.int32),
        found.ranks[order].astype(np.int16),
        np.ascontiguousarray(true[order].transpose(1, 2, 0)),
        np.ascontiguousarray(false[order].transpose(1, 2, 0)),
        starts,
        _positives(objects, len(classes), len(images)),
    )


def _objects(annotations: Results, classes: dict[Hashable, int], images: dict[Hashable, int]) -> Objects:
    groups, rows = _groups(annotations, classes, images)
    crowd = np.array([bool(row.get("iscrowd")) for row in rows], np.bool_)
    named = np.array([row["id"] != 0 for row in rows], np.bool_)
    return sort_objects(groups, _boxes(rows), _numbers(rows, "area"), crowd, named)


def _positives(objects: Objects, classes: int, images: int) -> npt.NDArray[np.int32]:
    """Return (4, K, I): how many objects count."""
    counts = objects.counts()
    by_area = [np.bincount(objects.groups[counts[:, a]], minlength=classes * images) for a in range(len(AREAS))]
    return np.stack(by_area).astype(np.int32).reshape(len(AREAS), classes, images)


def _places(rows: Results) -> dict[Hashable, int]:
    """Return the place of each id among the sorted ones."""
    return {name: place for place, name in enumerate(sorted({row["id"] for row in rows}))}


def _groups(rows: Results, classes: dict[Hashable, int], images: dict[Hashable, int]) -> tuple[Ints, Results]:
    """Return the group of each row, (n,), its class's place times I plus its image's, and these rows.

    Rows of unknown classes or images are left out.
    """
    by_class = np.array([classes.get(row["category_id"], -1) for row in rows], np.int64)
    by_image = np.array([images.get(row["image_id"], -1) for row in rows], np.int64)
    known = (by_class >= 0) & (by_image >= 0)
    if not known.all():
        rows = [rows[i] for i in np.flatnonzero(known)]
    return (by_class * len(images) + by_image)[known], rows


def _numbers(rows: Results, name: str) -> Floats:
    return np.array([row[name] for row in rows], np.float64)


def _boxes(rows: Results) -> Floats:
    return np.array([row["bbox"] for row in rows], np.float64).reshape(len(rows), 4)


def summarize(matches: Matches, threshold: float = -np.inf) -> dict[str, float]:
    """Return METRICS of the detections with a score above ``threshold``."""
    return summarize_at(matches, [threshold])[0]


def summarize_at(matches: Matches, thresholds: Sequence[float]) -> list[dict[str, float]]:
    """Return METRICS of the detections with a score above each threshold."""
    precision, recall = accumulate(matches, thresholds)
    few = {limit: accumulate(matches, thresholds, areas=1, limit=limit)[1] for limit in (1, 10)}
    rows = []
    for t, (p, r) in enumerate(zip(precision, recall, strict=True)):
        values = [p[0], p[0, :, 0], p[0, :, 5], *p[1:], few[1][t], few[10][t], *r]
        rows.append(dict(zip(METRICS, map(mean, values), strict=True)))
    return rows


def mean(values: Floats) -> float:
    """Return the mean of what is not NaN; NaN where there is nothing else."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def accumulate(
    matches: Matches, thresholds: Sequence[float], areas: int = len(AREAS), limit: int = LIMIT
) -> tuple[Floats, Floats]:
    """Return the interpolated precision, averaged over RECALLS, and the recall, both (T, areas, K, 10).

    Only detections above the threshold, and the first ``limit`` of each image and class, count; NaN marks classes
    without an object in that area.
    """
    shape = (len(thresholds), areas, len(matches.starts) - 1, len(IOUS))
    precision, recall = np.full(shape, np.nan), np.full(shape, np.nan)
    positives = matches.positives.sum(axis=2)
    for k in range(shape[2]):
        own = matches.starts[k] + np.flatnonzero(matches.ranks[matches.starts[k] : matches.starts[k + 1]] < limit)
        kept = [int(np.count_nonzero(matches.scores[own] > threshold)) for threshold in thresholds]
        for a in range(areas):
            if positives[a, k]:
                curve = _Curve.of(matches.true[a][:, own], matches.false[a][:, own])
                for t, n in enumerate(kept):
                    precision[t, a, k], recall[t, a, k] = curve.averages(n, positives[a, k])
    return precision, recall


@dataclass(frozen=True)
class _Curve:
    """Precision of a class where a detection is matched, which is where it has its peaks; H: most matched ones."""

    precision: Floats  # (10, H) after each matched detection, 0 beyond the last
    places: Ints  # (10, H) of the matched detection, beyond the last that of none

    @staticmethod
    def of(true: npt.NDArray[np.bool_], false: npt.NDArray[np.bool_]) -> "_Curve":
        """Take (10, n) flags, by falling score."""
        row, place = np.nonzero(true)
        counts = np.bincount(row, minlength=len(true))
        nth = np.arange(len(row)) - np.repeat(counts.cumsum() - counts, counts)
        shape = (len(true), int(counts.max()))
        precision, places = np.zeros(shape), np.full(shape, true.shape[1])
        fp = false.cumsum(axis=1, dtype=np.int32)[row, place]
        precision[row, nth] = (nth + 1) / (nth + 1 + fp + np.spacing(1))
        places[row, nth] = place
        return _Curve(precision, places)

    def averages(self, n: int, positives: int) -> tuple[Floats, Floats]:
        """Return (10,) the average of the precision envelope at RECALLS, and the recall, of the first n detections."""
        kept = self.places < n
        envelope = np.maximum.accumulate(np.where(kept, self.precision, 0)[:, ::-1], axis=1)[:, ::-1]
        padded = np.concatenate([envelope, np.zeros((len(envelope), 1))], axis=1)  # recalls never reached count 0
        reached = np.searchsorted(np.arange(1, padded.shape[1]) / positives, RECALLS)
        return padded.take(reached, axis=1).mean(axis=1), kept.sum(axis=1) / positives


def check_images(ground_truth: GroundTruth, detections: Results) -> None:
    """Raise UsageError when there are detections of images that the ground truth does not have."""
    unknown = {d["image_id"] for d in detections} - {image["id"] for image in ground_truth["images"]}
    if unknown:
        raise UsageError(f"{len(unknown)} detected images are not in the ground truth, image_id {min(unknown)} for one")
