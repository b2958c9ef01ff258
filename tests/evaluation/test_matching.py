"""Matching is that of pycocotools, to the last bit."""

import dataclasses
import json

import numpy as np
import pytest
from pycocotools.mask import iou

from drrepro.evaluation import evaluate_coco, matching
from drrepro.evaluation.coco import match_detections
from drrepro.evaluation.matching import box_ious
from tests.conftest import shared
from tests.evaluation.reference import pycocotools_matches, pycocotools_numbers

SIDES = (8, 12, 16, 24, 31, 32, 33, 64, 96, 97)  # at the ends of the ranges of areas, and beside them


def crowded(seed):
    """Boxes on a coarse grid, some of them crowds and some twice, under few classes, so that IoUs and scores tie.

    Images and classes stand in no order, the first of each have no object, some no detection. Annotation ids begin at
    0, and some annotations and detections are of category 99, which is not evaluated. Of every fourth set an image
    has over a hundred detections of a class.
    """
    rng = np.random.default_rng(seed)
    images, classes = rng.permutation(9)[: rng.integers(2, 9)] + 3, rng.permutation(5)[: rng.integers(2, 5)]
    pool = [[*(16 * rng.integers(0, 4, 2)).tolist(), *rng.choice(SIDES, 2).tolist()] for _ in range(5)]
    truth = {
        "images": [{"id": int(i), "width": 128, "height": 128} for i in images],
        "categories": [{"id": int(k), "name": str(k)} for k in classes],
        "annotations": [
            annotation(rng, i, rng.choice(images[1:]), rng.choice([*classes[1:], *classes[1:], 99]), pool)
            for i in range(rng.integers(1, 60))
        ],
    }
    places = [(int(images[0]), int(classes[0]))] * (130 if seed % 4 == 0 else 0)
    places += [(int(rng.choice(images[:-1])), int(rng.choice([*classes, 99]))) for _ in range(rng.integers(0, 150))]
    found = [detection(rng, i, k, pool[rng.integers(len(pool))]) for i, k in places]
    for row in truth["annotations"]:
        found += [detection(rng, row["image_id"], row["category_id"], row["bbox"]) for _ in range(2)]
    return truth, [found[i] for i in rng.permutation(len(found))]


def annotation(rng, number, image, category, pool):
    x, y, w, h = pool[rng.integers(len(pool))]
    moved = [x + 4 * int(rng.integers(3)), y, w, h]
    area = w * h * float(rng.choice([1, 1, 0.7]))  # of an outline it is smaller
    row = {"id": number, "image_id": int(image), "category_id": int(category), "bbox": moved, "area": area}
    crowd = {"iscrowd": int(rng.random() < 0.3)} if rng.random() < 0.6 else {}
    return {**row, **crowd}


def detection(rng, image, category, base):
    """Return a detection of ``base``: as it is, moved on the grid or by any amount, or grown; some have no area."""
    moved = np.array(base, dtype=float)
    kind = rng.integers(5)
    if kind == 1:
        moved[0] += 2 * rng.integers(-2, 3)
    elif kind == 2:
        moved += rng.normal(0, 2, 4)
    elif kind == 3:
        moved[2:] += 4 * rng.integers(0, 3, 2)
    elif kind == 4 and rng.random() < 0.1:
        moved[2] = 0
    score = float(rng.integers(1, 9)) / 8
    return {"image_id": image, "category_id": category, "bbox": moved.clip(0).tolist(), "score": score}


def check_equal(truth, found):
    ours, theirs = match_detections(truth, found), pycocotools_matches(truth, found)
    ours.check()
    for field in dataclasses.fields(ours):
        one, other = getattr(ours, field.name), getattr(theirs, field.name)
        assert one.dtype == other.dtype, field.name
        np.testing.assert_array_equal(one, other, err_msg=field.name)
    if found:
        numbers = list(evaluate_coco(truth, found).values())
        np.testing.assert_allclose(numbers, pycocotools_numbers(truth, found), rtol=0, atol=1e-12)


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_equals_pycocotools_on_random_sets(first):
    for seed in range(first, first + 20):
        check_equal(*crowded(seed))


def test_the_random_sets_have_what_is_hard():
    """Ties of IoU that matter, matches to annotation 0, groups of over a hundred, ignored detections."""
    sets = [crowded(seed) for seed in range(20)]
    matches = [match_detections(*one) for one in sets]
    assert any(m.ranks.max() == 99 for m in matches)
    assert any((~m.true & ~m.false)[0].any() for m in matches)
    zero = [({**t, "annotations": [{**a, "id": a["id"] + 1} for a in t["annotations"]]}, found) for t, found in sets]
    assert any((m.true != match_detections(*one).true).any() for m, one in zip(matches, zero, strict=True))
    turned = [({**t, "annotations": t["annotations"][::-1]}, found) for t, found in sets]
    assert any((m.true != match_detections(*one).true).any() for m, one in zip(matches, turned, strict=True))


def test_equals_pycocotools_on_coco_eval100():
    folder = shared("coco_eval100")
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    check_equal(truth, json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text()))


def test_equals_pycocotools_where_nothing_is_detected_or_annotated():
    truth, found = crowded(1)
    check_equal(truth, [])
    check_equal({**truth, "annotations": []}, found)


def test_pairs_in_parts_are_those_at_once(monkeypatch):
    truth, found = crowded(0)
    whole = match_detections(truth, found)
    monkeypatch.setattr(matching, "PAIRS", 7)
    parts = match_detections(truth, found)
    np.testing.assert_array_equal(parts.true, whole.true)
    np.testing.assert_array_equal(parts.false, whole.false)


@pytest.mark.parametrize("crowd", [False, True])
def test_ious_are_those_of_pycocotools_to_the_last_bit(crowd):
    rng = np.random.default_rng(0)
    ones, others = (rng.uniform(0, 100, (300, 4)) for _ in range(2))
    others[:50, 2:] = 0
    theirs = iou(ones, others, [crowd] * len(others))
    one, other = (places.ravel() for places in np.indices(theirs.shape))
    ours = box_ious(ones[one], others[other], np.full(len(one), crowd))
    np.testing.assert_array_equal(ours, theirs.ravel())
