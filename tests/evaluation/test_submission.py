import json
import shutil
import zipfile

import pytest
from typer.testing import CliRunner

from drrepro.cli import app
from drrepro.config import compose, for_evaluation, run_id
from drrepro.data.splits import split_root
from drrepro.errors import RunError, UsageError
from drrepro.evaluation.submission import validate_submission, write_submission
from drrepro.experiments.run import run
from drrepro.progress import silent
from tests.conftest import TINY

IMAGES, CATEGORIES = [7, 581929], [1, 90]
NAME = "detections_test-dev2017_mine-1_results"


def detection(**changes):
    return {"image_id": 581929, "category_id": 90, "bbox": [1.0, 2.0, 3.5, 4.0], "score": 0.5, **changes}


def packed(folder, content, name=NAME, inside=None):
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(inside or f"{name}.json", json.dumps(content))
    return path


def test_what_is_written_is_named_rounded_and_valid(tmp_path):
    rows = [detection(bbox=[0.126, 10.0, 99.994999, 1e-4], score=0.123456789), detection(image_id=7, category_id=1)]
    path = write_submission(tmp_path, "test-dev2017", "mine-1", rows, IMAGES, CATEGORIES)
    assert path == tmp_path / f"{NAME}.zip"
    assert validate_submission(path, IMAGES, CATEGORIES) == 2
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"{NAME}.json"]
        first, second = json.loads(archive.read(f"{NAME}.json"))
    assert first == detection(bbox=[0.13, 10.0, 99.99, 0.01], score=0.12346)
    assert second == rows[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


def test_no_detection_at_all_is_valid(tmp_path):
    path = write_submission(tmp_path, "test-dev2017", "mine", [], IMAGES, CATEGORIES)
    assert validate_submission(path, IMAGES, CATEGORIES) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": 8}, "image_id is not in the split"),
        ({"image_id": 7.0}, "image_id is not in the split"),
        ({"image_id": "7"}, "image_id is not in the split"),
        ({"category_id": 2}, "category_id is not in the split"),
        ({"category_id": True}, "category_id is not in the split"),
        ({"bbox": [1, 2, 3]}, "bbox must be four finite numbers"),
        ({"bbox": [1, 2, 3, float("nan")]}, "bbox must be four finite numbers"),
        ({"bbox": [1, 2, 3, "4"]}, "bbox must be four finite numbers"),
        ({"bbox": [1, 2, 0, 4]}, "bbox must have a positive width and height"),
        ({"score": 1.01}, "score must be a number from 0 to 1"),
        ({"score": float("inf")}, "score must be a number from 0 to 1"),
        ({"score": None}, "score must be a number from 0 to 1"),
        ({"segmentation": []}, "needs image_id, category_id, bbox and score"),
    ],
)
def test_what_the_server_refuses_is_named(tmp_path, changes, message):
    path = packed(tmp_path, [detection(), detection(**changes)])
    with pytest.raises(RunError, match=rf"{NAME}\.zip: detection 1: {message}"):
        validate_submission(path, IMAGES, CATEGORIES)


def test_names_contents_and_the_limit_of_an_image_are_checked(tmp_path):
    assert validate_submission(packed(tmp_path, [detection()] * 100), IMAGES, CATEGORIES) == 100
    with pytest.raises(RunError, match="image 581929 has 101 detections; at most 100 count"):
        validate_submission(packed(tmp_path, [detection(image_id=7), *[detection()] * 101]), IMAGES, CATEGORIES)
    with pytest.raises(RunError, match="must be named detections_<split>_<algorithm>_results"):
        validate_submission(packed(tmp_path, [], name="results"), IMAGES, CATEGORIES)
    with pytest.raises(RunError, match=r"must hold .*json and nothing else, holds \['other.json'\]"):
        validate_submission(packed(tmp_path, [], inside="other.json"), IMAGES, CATEGORIES)
    with pytest.raises(RunError, match="must hold a list of detections"):
        validate_submission(packed(tmp_path, {}), IMAGES, CATEGORIES)
    (tmp_path / f"{NAME}.zip").write_bytes(b"PK")
    with pytest.raises(RunError, match="not a zip with a json in it"):
        validate_submission(tmp_path / f"{NAME}.zip", IMAGES, CATEGORIES)


@pytest.fixture
def secret(environment, data_folder, tmp_path, monkeypatch):
    """The test images of digits as a test-dev: in the folder of coco2017, its json without annotations."""
    for name in ("digits", "coco2017"):
        shutil.copytree(data_folder / "digits", tmp_path / "data" / name)
    root = tmp_path / "data" / "coco2017"
    content = json.loads((root / "test.json").read_text())
    del content["annotations"]
    (root / "annotations").mkdir()
    (root / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(content))
    (root / "images" / "test").rename(root / "test2017")
    monkeypatch.setenv("DRREPRO_DATA", str(tmp_path / "data"))
    return content


TESTDEV = [
    "data.name=coco2017_testdev",
    "data.embedded=false",
    "data.submission=test-dev2017",
    "data.test_json=annotations/image_info_test-dev2017.json",
    "data.test_images=test2017",
]


def test_a_secret_split_is_evaluated_to_a_zip_without_any_metric(environment, secret, tmp_path):
    trained = compose([*TINY, "evaluation.score_threshold=0.3"])
    run(trained, environment, tmp_path / "data", silent)
    arguments = ["evaluate", "--quiet", f"weights=run:{run_id(trained)}", *TESTDEV]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    record = json.loads(CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert (record["metrics"], record["curve"], record["densities"]) == ([], [], [])
    path = environment / record["id"] / "detections_test-dev2017_drrepro-dr-64_results.zip"
    assert record["submission"] == str(path)
    assert str(path) in shown
    assert "cocodataset.org" in shown
    images, categories = ([row["id"] for row in secret[key]] for key in ("images", "categories"))
    with zipfile.ZipFile(path) as archive:
        scores = [row["score"] for row in json.loads(archive.read(f"{path.stem}.json"))]
    assert validate_submission(path, images, categories) == len(scores) > 0
    assert min(scores) >= 0.3  # the recipe's threshold, not the lowest of the sweep


def test_the_zip_holds_the_detections_of_an_annotated_evaluation(environment, secret, tmp_path):
    trained = compose([*TINY, "evaluation.score_threshold=0.3"])
    run(trained, environment, tmp_path / "data", silent)
    config = for_evaluation(trained, [f"weights=run:{run_id(trained)}", *TESTDEV])
    record = run(config, environment, tmp_path / "data", silent)
    import gzip

    known = json.loads(gzip.decompress((environment / run_id(trained) / "detections.json.gz").read_bytes()))
    with zipfile.ZipFile(record["submission"]) as archive:
        written = json.loads(archive.read(archive.namelist()[0]))
    known = [row for row in known if row["score"] > 0.3]
    assert [row["image_id"] for row in written] == [row["image_id"] for row in known]
    for ours, theirs in zip(written, known, strict=True):
        assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=0.01)


def test_only_a_split_that_is_to_be_submitted_may_lack_annotations(environment, secret, tmp_path):
    trained = compose(TINY)
    run(trained, environment, tmp_path / "data", silent)
    given = [f"weights=run:{run_id(trained)}", *TESTDEV, "data.submission=null"]
    with pytest.raises(UsageError, match=r"image_info_test-dev2017\.json: not in COCO format.* annotations"):
        run(for_evaluation(trained, given), environment, tmp_path / "data", silent)
    with pytest.raises(UsageError, match=r"evaluation\.detections_per_image=300: the evaluation server takes at most"):
        compose(["data.submission=test-dev2017", "evaluation.detections_per_image=300"])


def test_the_test_dev_option_lies_beside_coco2017(tmp_path):
    (tmp_path / "coco2017").mkdir()
    config = compose(["data=coco2017_testdev", "model=small"])
    assert (config.data.root, config.data.submission) == (None, "test-dev2017")
    assert split_root(config.data, tmp_path) == tmp_path / "coco2017"
    assert (config.data.test_json, config.data.test_images) == ("annotations/image_info_test-dev2017.json", "test2017")
    assert config.input.scale == 800
