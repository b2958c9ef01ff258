import numpy as np
import pytest

from drrepro.evaluation import evaluate_voc
from drrepro.evaluation.voc import match_voc, summarize_voc
from tests.evaluation.test_coco import problem


def devkit(truth, found):
    """VOCevaldet of the development kit, line by line, with its 11-point and its all-point AP."""
    results = []
    for category in [c["id"] for c in truth["categories"]]:
        objects = [o for o in truth["annotations"] if o["category_id"] == category]
        positives = sum(not o["iscrowd"] for o in objects)
        if not positives:
            continue
        used, tp, fp = set(), [], []
        for d in sorted((d for d in found if d["category_id"] == category), key=lambda d: -d["score"]):
            best, which = 0.0, None
            for o in objects:
                if o["image_id"] == d["image_id"] and iou(d["bbox"], o["bbox"]) > best:
                    best, which = iou(d["bbox"], o["bbox"]), o
            hit = best >= 0.5
            if hit and which["iscrowd"]:
                tp.append(0), fp.append(0)
            elif hit and which["id"] not in used:
                used.add(which["id"])
                tp.append(1), fp.append(0)
            else:
                tp.append(0), fp.append(1)
        tp, fp = np.cumsum(tp), np.cumsum(fp)
        recall, precision = tp / positives, tp / np.maximum(tp + fp, 1e-9)
        eleven = sum(max(precision[recall >= t], default=0) / 11 for t in np.arange(0, 1.1, 0.1))
        mrec, mpre = [0, *recall, 1], [0, *precision, 0]
        for i in range(len(mpre) - 2, -1, -1):
            mpre[i] = max(mpre[i], mpre[i + 1])
        area = sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)))
        results.append((eleven, area))
    return np.mean(results, axis=0)


def iou(a, b):
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def distinct(found):
    """The kit leaves the order of equal scores open, so compare where there are none."""
    return [{**d, "score": d["score"] + 1e-4 * i} for i, d in enumerate(found)]


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_development_kit(seed):
    truth, found = problem(seed)
    found = distinct(found)
    np.testing.assert_allclose(list(evaluate_voc(truth, found).values()), devkit(truth, found), atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_thresholds_from_one_matching(seed):
    truth, found = problem(seed, detections=60)
    matches = match_voc(truth, found)
    for threshold in (0.2, 0.5, 0.8):
        kept = [d for d in found if d["score"] > threshold]
        assert summarize_voc(matches, threshold) == pytest.approx(evaluate_voc(truth, kept))


def test_a_difficult_object_is_neither_found_nor_missed():
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [50, 50, 10, 10], "iscrowd": 1},
        ],
    }
    hit = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5}
    on_difficult = {"image_id": 1, "category_id": 1, "bbox": [50, 50, 10, 10], "score": 0.9}
    assert evaluate_voc(truth, [hit]) == {"AP50_2007": 1.0, "AP50_2010": 1.0}
    assert evaluate_voc(truth, [hit, on_difficult]) == {"AP50_2007": 1.0, "AP50_2010": 1.0}
    assert evaluate_voc(truth, [on_difficult])["AP50_2010"] == 0.0
    assert evaluate_voc(truth, []) == {"AP50_2007": 0.0, "AP50_2010": 0.0}
