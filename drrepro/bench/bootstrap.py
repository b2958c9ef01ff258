"""What the bootstrap costs beside evaluating each resampled set, on a drawn problem."""

import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from drrepro.evaluation.bootstrap import RESAMPLES, draw_counts, resampled_ap
from drrepro.evaluation.coco import GroundTruth, Results, evaluate_coco, match_detections

IMAGES, CLASSES, DETECTIONS = 500, 10, 100  # as many detections as an image can have
BRUTE = 3  # resampled sets that are evaluated as sets


def bench(progress: Callable[[int, int], None]) -> pd.DataFrame:
    """Return seconds of 1,000 resamples, and of evaluating as many sets, matching included, as BRUTE of them take.

    Raises AssertionError when the two differ.
    """
    truth, found, _ = draw_problem(IMAGES, CLASSES, DETECTIONS, seed=0)
    matches, counts = match_detections(truth, found), draw_counts(IMAGES)
    start = time.perf_counter()
    ours = resampled_ap(matches, [0.05], counts)[0]
    once = time.perf_counter() - start
    progress(1, 1 + BRUTE)
    sets = [resampled_set(truth, found, count) for count in counts[:BRUTE]]
    start = time.perf_counter()
    for b, resampled in enumerate(sets):
        again = evaluate_coco(*resampled)["AP"]
        np.testing.assert_allclose(ours[b], again, rtol=0, atol=1e-9)
        progress(2 + b, 1 + BRUTE)
    each = (time.perf_counter() - start) / BRUTE * RESAMPLES
    size = {"resamples": RESAMPLES, "images": IMAGES, "classes": CLASSES, "detections": len(found)}
    return pd.DataFrame(
        [
            {"bootstrap": "weights on one matching", **size, "seconds": once, "ratio": 1.0},
            {"bootstrap": "matching each resampled set", **size, "seconds": each, "ratio": each / once},
        ]
    )


def resampled_set(truth: GroundTruth, found: Results, counts: npt.NDArray[np.integer]) -> tuple[GroundTruth, Results]:
    """Return the set in which each copy of an image has an id of its own; ids follow the order of the images."""
    objects, boxes = _by_image(truth["annotations"]), _by_image(found)
    originals = sorted(truth["images"], key=lambda image: image["id"])
    copies = [image for image, count in zip(originals, counts.tolist(), strict=True) for _ in range(count)]
    annotations = [{**a, "image_id": i} for i, image in enumerate(copies, 1) for a in objects[image["id"]]]
    return {
        **truth,
        "images": [{**image, "id": i} for i, image in enumerate(copies, 1)],
        "annotations": [{**a, "id": i} for i, a in enumerate(annotations, 1)],
    }, [{**d, "image_id": i} for i, image in enumerate(copies, 1) for d in boxes[image["id"]]]


def _by_image(rows: Results) -> defaultdict[int, Results]:
    groups: defaultdict[int, Results] = defaultdict(list)
    for row in rows:
        groups[row["image_id"]].append(row)
    return groups


def draw_problem(images: int, classes: int, detections: int, seed: int) -> tuple[GroundTruth, Results, Results]:
    """Return a ground truth of up to six objects an image, and what two detectors of unlike quality find in it."""
    rng = np.random.default_rng(seed)
    truth: GroundTruth = {
        "images": [{"id": i + 1, "width": 160, "height": 128} for i in range(images)],
        "categories": [{"id": k + 1, "name": str(k)} for k in range(classes)],
        "annotations": [],
    }
    for i in range(images):
        for _ in range(rng.integers(0, 7)):
            x, y, w, h = np.concatenate([rng.uniform(0, 100, 2), rng.uniform(10, 60, 2)]).tolist()
            box = {"image_id": i + 1, "category_id": int(rng.integers(classes)) + 1, "bbox": [x, y, w, h]}
            truth["annotations"].append({**box, "id": len(truth["annotations"]) + 1, "area": w * h, "iscrowd": 0})
    one, other = (_draw_detections(truth, detections, noise, rng) for noise in (1.5, 3.0))
    return truth, one, other


def _draw_detections(truth: GroundTruth, detections: int, noise: float, rng: np.random.Generator) -> Results:
    """Return each object once, moved by ``noise`` px, and boxes anywhere with lower scores."""
    found: Results = []
    objects = _by_image(truth["annotations"])
    for image in range(1, len(truth["images"]) + 1):
        boxes = objects[image]
        for a in boxes:
            box = np.abs(np.array(a["bbox"]) + rng.normal(0, noise, 4)).tolist()
            found.append(_row(image, a["category_id"], box, rng.beta(4, 2)))
        for _ in range(detections - len(boxes)):
            box = np.concatenate([rng.uniform(0, 100, 2), rng.uniform(10, 60, 2)]).tolist()
            found.append(_row(image, int(rng.integers(len(truth["categories"]))) + 1, box, rng.uniform(0.05, 0.4)))
    return found


def _row(image: int, category: int, box: list[float], score: float) -> dict[str, object]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": round(float(score), 6)}
