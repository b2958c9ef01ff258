"""Which images are shown, and that what is drawn of them is theirs."""

import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from drrepro.data.splits import open_split
from drrepro.evaluation.coco import match_detections
from drrepro.report.evidence import Evidence, records_of
from drrepro.report.examples import choose, find_examples, objects_found
from drrepro.runs.folder import RunFolder
from drrepro.runs.kept import write_detections, write_matches
from drrepro.studies import planning
from tests.report.test_tables import fake, robust


def test_the_furthest_either_way_and_random_ones_are_chosen():
    gain, objects = np.array([0, 2, -3, 5, 4, -1, 1, 0, 0]), np.array([1, 2, 3, 0, 4, 1, 1, 1, 1])
    chosen = choose(gain, objects, ("DR", "focal"))
    assert [i for i, why in chosen.items() if why == "DR finds most more"] == [4, 1]
    assert [i for i, why in chosen.items() if why == "focal finds most more"] == [2, 5]
    drawn = [i for i, why in chosen.items() if why == "at random"]
    assert len(drawn) == 2
    assert set(drawn) <= {0, 6, 7, 8}  # an image without an object is never shown
    assert choose(gain, objects, ("DR", "focal")) == chosen


@pytest.mark.parametrize("gain", [[], [0], [1, 2], [-1], [3, -1, 0]])
def test_an_image_is_shown_once_and_for_what_is_true(gain):
    chosen = choose(np.array(gain, dtype=np.int64), np.ones(len(gain), np.int64), ("DR", "focal"))
    assert len(chosen) == len(gain)
    for place, why in chosen.items():
        assert {"DR finds most more": gain[place] > 0, "focal finds most more": gain[place] < 0}.get(why, True)


def detections(tested, sure):
    """The objects themselves, some as another class; with scores above 0.5, or ``sure`` of some."""
    chance = np.random.default_rng(0)
    rows = []
    for row in tested.ground_truth()["annotations"]:
        wrong = chance.random() > sure
        category = chance.choice(tested.category_ids) if wrong else row["category_id"]
        score = float(chance.uniform(0.3, 1))
        rows.append({"image_id": row["image_id"], "category_id": int(category), "bbox": row["bbox"], "score": score})
    return rows


@pytest.fixture
def evidence(data_folder, tmp_path):
    """Two runs on the tiny digits; DR is right in all, focal in half."""
    planned, configs = planning.plan_study("thresholds", [])
    fake(tmp_path, (planned, configs), robust)
    tested = open_split(configs[0].data, "test", data_folder)
    for config in configs:
        found = detections(tested, 1.0 if config.loss.name == "dr" else 0.5)
        write_detections(tmp_path / planning.run_id(config), found)
        write_matches(tmp_path / planning.run_id(config), match_detections(tested.ground_truth(), found))
    return Evidence(planned, records_of(planned, tmp_path), {})


def test_the_objects_found_are_those_that_the_best_detections_match(data_folder):
    tested = open_split(planning.plan_study("thresholds", [])[1][0].data, "test", data_folder)
    truth, rows = tested.ground_truth(), detections(tested, 0.5)
    hits, objects = objects_found(match_detections(truth, rows), threshold=0.6)
    assert 0 < hits.sum() < objects.sum() == len(truth["annotations"])
    for place, image in enumerate(sorted(image["id"] for image in truth["images"])):
        own = [row for row in truth["annotations"] if row["image_id"] == image]
        best = sorted((r for r in rows if r["image_id"] == image and r["score"] > 0.6), key=lambda r: -r["score"])
        right = {(str(r["bbox"]), r["category_id"]) for r in own}  # a detection's box is that of an object
        found = sum((str(r["bbox"]), r["category_id"]) in right for r in best[: len(own)])
        assert (hits[place], objects[place]) == (found, len(own))


def test_truth_focal_and_dr_are_drawn_beside_each_other(evidence, data_folder, tmp_path):
    found = find_examples(evidence, tmp_path, data_folder)
    assert found.missing == ""
    assert found.data == "digits"
    assert found.runs == {loss: evidence.of(loss)[0]["id"] for loss in ("focal", "dr")}
    assert found.examples
    for example in found.examples:
        truth, focal, dr = example.pictures
        number = len(truth.alt.split(", "))
        assert focal.title.endswith(f" of {number} found")
        assert dr.title == f"dr: {number} of {number} found"
        assert sorted(word.split()[0] for word in dr.alt.split(": ")[2].split(", ")) == sorted(
            truth.alt.split(": ")[1].split(", ")
        )  # it found each object
        for picture in example.pictures:
            with Image.open(io.BytesIO(base64.b64decode(picture.data.split(",")[1]))) as image:
                assert image.size == (picture.width, picture.height)


def test_a_picture_annotated_on_its_stored_pixels_is_drawn_as_stored(evidence, data_folder, tmp_path):
    """COCO's boxes are of the stored pixels, whatever a photograph's EXIF tag says."""
    folder = tmp_path / "turned"
    shutil.copytree(data_folder / "digits", folder)
    for path in (folder / "images" / "test").iterdir():
        with Image.open(path) as image:
            exif = image.getexif()
            exif[0x0112] = 6  # a quarter turn
            image.save(path, exif=exif)
    record = evidence.of("dr")[0]
    record["config"]["data"] |= {"embedded": False, "root": str(folder)}
    found = find_examples(evidence, tmp_path, data_folder)
    assert found.missing == ""
    assert all(picture.width > picture.height for example in found.examples for picture in example.pictures)


def test_without_images_or_detections_it_says_why(evidence, data_folder, tmp_path):
    elsewhere = find_examples(evidence, tmp_path, tmp_path / "nowhere")
    assert elsewhere.examples == []
    assert "drrepro data make" in elsewhere.missing
    RunFolder(tmp_path / evidence.of("dr")[0]["id"]).detections.write_bytes(b"no gzip")
    damaged = find_examples(evidence, tmp_path, data_folder)
    assert "detections.json.gz" in damaged.missing
    write_detections(
        tmp_path / evidence.of("dr")[0]["id"], [{"image_id": 999, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1.0}]
    )
    assert "evaluated on other test images" in find_examples(evidence, tmp_path, data_folder).missing
    none = Evidence(evidence.plan, {}, {})
    assert find_examples(none, tmp_path, data_folder).missing == "Not run with both losses."
