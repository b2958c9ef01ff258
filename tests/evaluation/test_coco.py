import numpy as np
import pytest

from drrepro.errors import UsageError
from drrepro.evaluation import evaluate_coco, threshold_sweep
from drrepro.evaluation.coco import METRICS
from tests.conftest import shared
from tests.evaluation.reference import pycocotools_numbers

PUBLISHED = [
    *(0.504581, 0.696973, 0.572982, 0.585626, 0.519400, 0.501398),
    *(0.386813, 0.593680, 0.595353, 0.639811, 0.566421, 0.564291),
]


def problem(seed, images=6, classes=3, detections=30):
    """Random boxes, some of them crowds, and detections near them with tied scores."""
    rng = np.random.default_rng(seed)
    truth = {
        "images": [{"id": 10 * i + 7, "width": 200, "height": 200} for i in range(images)],
        "categories": [{"id": 5 * k + 2, "name": str(k)} for k in range(classes)],
        "annotations": [],
    }
    found = []
    for image in truth["images"]:
        for _ in range(rng.integers(0, 5)):
            w, h = rng.integers(5, 150, 2).tolist()
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": int(rng.integers(classes)) * 5 + 2,
                    "bbox": [*rng.integers(0, 50, 2).tolist(), w, h],
                    "area": w * h,
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
    for _ in range(detections):
        base = truth["annotations"][rng.integers(len(truth["annotations"]))]
        box = (np.array(base["bbox"], dtype=float) + rng.normal(0, 4, 4)).clip(1).tolist()
        category = base["category_id"] if rng.random() < 0.8 else 2
        found.append(
            {
                "image_id": base["image_id"],
                "category_id": category,
                "bbox": box,
                "score": float(rng.integers(1, 20) / 20),
            }
        )
    return truth, found


def test_the_twelve_numbers_of_coco_eval100(capfd):
    folder = shared("coco_eval100")
    found = evaluate_coco(folder / "instances_val2014_100.json", folder / "instances_val2014_fakebbox100_results.json")
    assert list(found) == list(METRICS)
    np.testing.assert_allclose(list(found.values()), PUBLISHED, atol=1e-6)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("seed", range(6))
def test_equals_pycocotools_on_random_problems(seed):
    truth, found = problem(seed)
    np.testing.assert_allclose(
        list(evaluate_coco(truth, found).values()), pycocotools_numbers(truth, found), atol=1e-12
    )


@pytest.mark.parametrize("seed", range(6))
def test_a_sweep_equals_evaluating_what_is_above_each_threshold(seed):
    truth, found = problem(seed, detections=60)
    for threshold, metrics in threshold_sweep(truth, found, [0.0, 0.3, 0.5, 0.8]).items():
        kept = [d for d in found if d["score"] > threshold]
        np.testing.assert_allclose(list(metrics.values()), pycocotools_numbers(truth, kept), atol=1e-12)


def test_no_detection_is_zero_and_no_object_is_not_a_number():
    truth, _ = problem(0)
    assert evaluate_coco(truth, [])["AP"] == 0
    assert np.isnan(list(evaluate_coco({**truth, "annotations": []}, []).values())).all()


def test_unknown_images_and_unreadable_files_are_named(tmp_path):
    truth, found = problem(0)
    with pytest.raises(UsageError, match="image_id 999"):
        evaluate_coco(truth, [{**found[0], "image_id": 999}])
    with pytest.raises(UsageError, match=r"nowhere\.json"):
        evaluate_coco(tmp_path / "nowhere.json", [])
