import json
import shutil

import numpy as np
import pytest

from drrepro.data.coco import read_coco
from drrepro.errors import UsageError
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
        (lambda c: c["annotations"].append("x"), "an entry of annotations needs keys: x"),
        (lambda c: c["images"].append(c["images"][0]), "an id stands twice in images"),
        (lambda c: c.pop("categories"), "needs a list of categories"),
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
