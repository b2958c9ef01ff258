"""Which images are shown, and that what is drawn of them is theirs."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from drrepro.data.splits import open_split
from drrepro.evaluation.coco import evaluate_coco, match_detections
from drrepro.experiments import plan
from drrepro.experiments.records import DETECTIONS, write_detections, write_matches
from drrepro.report.evidence import Evidence, records_of
from drrepro.report.examples import choose, find_examples, image_ap
from tests.report.test_tables import fake, robust

NAN = float("nan")


def test_the_furthest_either_way_and_random_ones_are_chosen():
    chosen = choose(np.array([0.0, 5, -7, NAN, 9, -1, 2, 0, 0]))
    assert [i for i, why in chosen.items() if why == "DR furthest above focal"] == [4, 1]
    assert [i for i, why in chosen.items() if why == "focal furthest above DR"] == [2, 5]
    drawn = [i for i, why in chosen.items() if why == "at random"]
    assert len(drawn) == 2
    assert set(drawn) <= {0, 6, 7, 8}  # an image without an object is never shown
    assert choose(np.array([0.0, 5, -7, NAN, 9, -1, 2, 0, 0])) == chosen


@pytest.mark.parametrize("gain", [[], [NAN, NAN], [0.0], [1.0, 2.0], [-1.0]])
def test_an_image_is_shown_once_and_for_what_is_true(gain):
    for place, why in choose(np.array(gain)).items():
        assert {"DR furthest above focal": gain[place] > 0, "focal furthest above DR": gain[place] < 0}.get(why, True)


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
    planned, configs = plan.thresholds([])
    fake(tmp_path, (planned, configs), robust)
    tested = open_split(configs[0].data, "test", data_folder)
    for config in configs:
        found = detections(tested, 1.0 if config.loss.name == "dr" else 0.5)
        write_detections(tmp_path / plan.run_id(config), found)
        write_matches(tmp_path / plan.run_id(config), match_detections(tested.ground_truth(), found))
    return Evidence(planned, records_of(planned, tmp_path), {})


def test_the_ap_of_an_image_is_that_of_a_set_of_it_alone(data_folder):
    tested = open_split(plan.thresholds([])[1][0].data, "test", data_folder)
    truth, found = tested.ground_truth(), detections(tested, 0.5)
    ap = image_ap(match_detections(truth, found), threshold=0.6)
    for place, image in enumerate(sorted(truth["images"], key=lambda row: row["id"])):
        own = {**truth, "images": [image]}
        own["annotations"] = [row for row in truth["annotations"] if row["image_id"] == image["id"]]
        rows = [row for row in found if row["image_id"] == image["id"] and row["score"] > 0.6]
        assert ap[place] == pytest.approx(100 * evaluate_coco(own, rows)["AP"], abs=1e-9, nan_ok=True)


def test_truth_focal_and_dr_are_drawn_beside_each_other(evidence, data_folder, tmp_path):
    found = find_examples(evidence, tmp_path, data_folder)
    assert found.missing == ""
    assert found.data == "digits"
    assert found.runs == {loss: evidence.of(loss)[0]["id"] for loss in ("focal", "dr")}
    assert found.examples
    for example in found.examples:
        truth, focal, dr = example.pictures
        assert focal.title.startswith("focal, AP ")
        assert dr.title == "dr, AP 100"
        assert sorted(word.split()[0] for word in dr.alt.split(": ")[1].split(", ")) == sorted(
            truth.alt.split(": ")[1].split(", ")
        )  # it found each object
        for picture in example.pictures:
            with Image.open(io.BytesIO(base64.b64decode(picture.data.split(",")[1]))) as image:
                assert image.size == (picture.width, picture.height)


def test_without_images_or_detections_it_says_why(evidence, data_folder, tmp_path):
    elsewhere = find_examples(evidence, tmp_path, tmp_path / "nowhere")
    assert elsewhere.examples == []
    assert "drrepro data make" in elsewhere.missing
    (tmp_path / evidence.of("dr")[0]["id"] / DETECTIONS).write_bytes(b"no gzip")
    damaged = find_examples(evidence, tmp_path, data_folder)
    assert DETECTIONS in damaged.missing
    none = Evidence(evidence.plan, {}, {})
    assert find_examples(none, tmp_path, data_folder).missing == "Not run with both losses."
