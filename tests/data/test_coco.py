import json
import shutil

import numpy as np
import pytest

from drrepro.data.coco import read_coco
from drrepro.data.loader import evaluation_batches
from drrepro.errors import UsageError
from drrepro.evaluation import evaluate_coco
from drrepro.schema import InputConfig
from tests.conftest import shared


@pytest.fixture
def copy(data_folder, tmp_path):
    """A set of eight images that a test may damage."""
    shutil.copytree(data_folder / "digits", tmp_path / "digits")
    return tmp_path / "digits"


def damage(folder, change):
    content = json.loads((folder / "test.json").read_text())
    change(content)
    (folder / "test.json").write_text(json.dumps(content))
    return read_coco(folder / "test.json", folder / "images" / "test")


def test_reads_what_the_json_says(copy):
    content = json.loads((copy / "test.json").read_text())
    dataset = damage(copy, lambda content: None)
    assert dataset.classes == [str(d) for d in range(10)]
    first = [a for a in content["annotations"] if a["image_id"] == dataset.samples[0].id]
    x, y, w, h = first[0]["bbox"]
    assert dataset.samples[0].boxes[0].tolist() == [x, y, x + w, y + h]
    assert dataset.ground_truth()["annotations"][0]["bbox"] == first[0]["bbox"]
    assert dataset.dropped == []


def test_category_ids_with_gaps_survive(copy):
    def spread(content):
        for category in content["categories"]:
            category["id"] = 7 * category["id"] + 3
        for annotation in content["annotations"]:
            annotation["category_id"] = 7 * annotation["category_id"] + 3

    dataset = damage(copy, spread)
    assert dataset.category_ids == [7 * i + 3 for i in range(1, 11)]
    assert {a["category_id"] for a in dataset.ground_truth()["annotations"]} <= set(dataset.category_ids)
    assert max(s.labels.max(initial=0) for s in dataset.samples) <= 10


def test_crowds_are_ignored_and_degenerate_boxes_dropped_and_named(copy):
    def change(content):
        content["annotations"][0]["iscrowd"] = 1
        content["annotations"][1]["bbox"][2] = 0

    dataset = damage(copy, change)
    assert sum(s.ignore.sum() for s in dataset.samples) == 1
    assert len(dataset.dropped) == 1
    assert "test.json: annotation 1 (id 2) is 0 x" in dataset.dropped[0]


def test_image_ids_with_gaps_and_beyond_32_bits_survive_to_the_metrics(copy):
    def spread(content):
        for row in content["images"]:
            row["id"] = 900_100_000_000 - 12_345 * row["id"]
        for annotation in content["annotations"]:
            annotation["image_id"] = 900_100_000_000 - 12_345 * annotation["image_id"]

    truth = damage(copy, spread).ground_truth()
    found = [{**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.9} for a in truth["annotations"]]
    assert max(row["image_id"] for row in found) > 2**32
    assert evaluate_coco(truth, found)["AP"] == pytest.approx(1)


def test_what_coco_leaves_open_is_filled_in(copy):
    def bare(content):
        for annotation in content["annotations"]:
            annotation.pop("area", None)
            annotation.pop("iscrowd", None)
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != content["images"][0]["id"]]

    dataset = damage(copy, bare)
    assert len(dataset.samples) == 8  # an image without objects is one all the same
    assert dataset.samples[0].boxes.shape == (0, 4)
    for sample in dataset.samples:
        np.testing.assert_allclose(sample.areas, np.prod(sample.boxes[:, 2:] - sample.boxes[:, :2], axis=1))
        assert not sample.ignore.any()


def test_secret_objects_need_no_annotations_and_others_do(copy):
    content = json.loads((copy / "test.json").read_text())
    del content["annotations"]
    (copy / "test.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"test\.json: not in COCO format, it needs a list of annotations"):
        read_coco(copy / "test.json", copy / "images" / "test")
    dataset = read_coco(copy / "test.json", copy / "images" / "test", annotated=False)
    assert not dataset.annotated
    assert (len(dataset.samples), sum(len(s.boxes) for s in dataset.samples)) == (8, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(category_id=99), "annotation 0 has category_id 99"),
        (lambda c: c["annotations"][0].update(image_id=99), "annotation 0 has image_id 99"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2]), "annotation 0 needs a bbox of four numbers"),
        (
            lambda c: c["annotations"][0].update(bbox=[1, 2, float("nan"), 3]),
            "annotation 0 needs a bbox of four numbers",
        ),
        (lambda c: c["annotations"][0].update(area=None), "annotation 0 needs .* a number as area"),
        (lambda c: c["annotations"].append("x"), "an entry of annotations needs keys: 'x'"),
        (lambda c: c["images"].append(c["images"][0]), "an id stands twice in images"),
        (lambda c: c.pop("categories"), "needs a list of categories"),
        (lambda c: c["images"][0].update(id="a"), "an id in images is not a whole number below 2.53: 'a'"),
        (lambda c: c["images"][0].update(id=2**53), "an id in images is not a whole number below 2.53"),
        (lambda c: c["categories"][0].update(id=1.5), "an id in categories is not a whole number below 2.53: 1.5"),
        (lambda c: c["images"][0].update(width=0), "width and height of an image must be at least 1 px"),
        (lambda c: c["images"][0].update(height="9"), "width and height of an image must be at least 1 px"),
        (lambda c: c["images"][0].pop("width"), "an entry of images needs file_name, height, id, width"),
        (lambda c: c["images"].clear() or c["annotations"].clear(), "needs a list of images"),
    ],
)
def test_bad_content_is_named(copy, change, message):
    with pytest.raises(UsageError, match=message):
        damage(copy, change)


def test_bad_files_are_named(copy):
    (copy / "half.json").write_text('{"images": [')
    with pytest.raises(UsageError, match=r"half\.json: not readable as json"):
        read_coco(copy / "half.json", copy)
    with pytest.raises(UsageError, match=r"none\.json: not found; set data\.root"):
        read_coco(copy / "none.json", copy)


def test_real_coco_with_crowds_and_empty_images():
    folder = shared("coco2017_mini")
    dataset = read_coco(folder / "annotations" / "instances_val2017.json", folder / "val2017")
    assert len(dataset.classes) == 80
    assert max(dataset.category_ids) == 90
    assert any(s.ignore.any() for s in dataset.samples)
    assert any(len(s.boxes) == 0 for s in dataset.samples)
    assert np.isfinite(np.concatenate([s.boxes for s in dataset.samples])).all()


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_every_real_picture_is_read_and_its_crowds_are_no_targets(split):
    folder = shared("coco2017_mini")
    path = folder / "annotations" / f"instances_{split}.json"
    dataset = read_coco(path, folder / split)
    crowds = {a["image_id"] for a in json.loads(path.read_bytes())["annotations"] if a["iscrowd"]}
    assert {s.id for s in dataset.samples if s.ignore.any()} == crowds
    config = InputConfig(scale=64)
    for items in evaluation_batches(dataset.samples, config, 4, 0):
        for item in items:
            height, width = item.pixels.shape[1:]
            assert min(height, width) <= 64
            boxes, labels = item.targets()
            assert len(boxes) == len(labels) == (~item.sample.ignore).sum()
            assert not len(boxes) or boxes.max() <= max(height, width) + 0.1


def test_a_detected_crowd_costs_nothing_as_in_pycocotools():
    folder = shared("coco2017_mini")
    dataset = read_coco(folder / "annotations" / "instances_val2017.json", folder / "val2017")
    truth = dataset.ground_truth()
    found = [
        {**{key: a[key] for key in ("image_id", "category_id", "bbox")}, "score": 0.9 if a["iscrowd"] else 0.5}
        for a in truth["annotations"]
    ]
    assert max(row["score"] for row in found) == 0.9
    assert evaluate_coco(truth, found)["AP"] == pytest.approx(1)
