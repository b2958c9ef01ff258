"""What pycocotools makes of detections: the matches that it kept, and the twelve numbers."""

import contextlib
import io
import json

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from drrepro.evaluation.coco import Matches


def pycocotools_matches(truth, found):
    """Return the matches that COCOeval comes to, in the form of ours."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(_index(truth), _index(_as_annotations(truth, found)), "bbox")
        evaluator.evaluate()
    classes, images = len(evaluator.params.catIds), len(evaluator.params.imgIds)
    by_class = np.array([*evaluator.evalImgs, None], dtype=object)[:-1].reshape(classes, 4, images)
    positives = np.zeros((4, classes, images), dtype=np.int32)
    columns = []
    for k in range(classes):
        own = [_columns([], 0)]
        for i in (i for i in range(images) if by_class[k, 0, i] is not None):  # None: no object and no detection
            positives[:, k, i] = [np.count_nonzero(e["gtIgnore"] == 0) for e in by_class[k, :, i]]
            own.append(_columns(by_class[k, :, i], i))
        joined = [np.concatenate(column, axis=-1) for column in zip(*own, strict=True)]
        order = np.argsort(-joined[0], kind="stable")
        columns.append([column[..., order] for column in joined])
    starts = np.cumsum([0, *(len(c[0]) for c in columns)])
    joined = [np.concatenate(column, axis=-1) for column in zip(*columns, strict=True)]
    return Matches(*joined, starts, positives)


def pycocotools_numbers(truth, found):
    """Return the twelve numbers, from pycocotools throughout."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = _index(json.loads(json.dumps(truth)))
        evaluator = COCOeval(coco, coco.loadRes(json.loads(json.dumps(found))), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return [v if v > -1 else float("nan") for v in evaluator.stats]


def _columns(by_area, image):
    """Return scores, images, ranks, true and false of the detections of one class in one image."""
    n = len(by_area[0]["dtScores"]) if len(by_area) else 0
    scores = np.array(by_area[0]["dtScores"] if n else [], dtype=np.float64)
    matched, ignored = (
        np.stack([e[key] for e in by_area]) != 0 if n else np.zeros((4, 10, 0), np.bool_)
        for key in ("dtMatches", "dtIgnore")
    )
    ranks = np.arange(n, dtype=np.int16)
    return scores, np.full(n, image, np.int32), ranks, matched & ~ignored, ~matched & ~ignored


def _index(content):
    coco = COCO()
    annotations = [{"iscrowd": 0, **a} for a in content["annotations"]]  # copies: pycocotools writes into them
    coco.dataset = {**content, "annotations": annotations}
    coco.createIndex()
    return coco


def _as_annotations(truth, found):
    """Return detections in the form of annotations (what pycocotools' loadRes does, but it cannot take none)."""
    annotations = [{**d, "id": i, "area": d["bbox"][2] * d["bbox"][3]} for i, d in enumerate(found, start=1)]
    return {"images": truth["images"], "categories": truth["categories"], "annotations": annotations}
