"""drrepro predict, with a detector trained for a few steps: what it finds is of no use, but there is plenty of it."""

import gzip
import json
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from drrepro.cli import app
from drrepro.errors import UsageError
from tests.conftest import TINY


@pytest.fixture(scope="module")
def trained(data_folder, tmp_path_factory):
    """A folder of runs with one in it, and its id."""
    runs = tmp_path_factory.mktemp("runs")
    environment = {**os.environ, "DRREPRO_DATA": str(data_folder), "DRREPRO_RUNS": str(runs)}
    result = CliRunner().invoke(app, ["train", "--json", "--quiet", *TINY], env=environment, catch_exceptions=False)
    return runs, json.loads(result.stdout)["id"]


@pytest.fixture
def run_id(trained, monkeypatch, tmp_path):
    """The id of the trained run, in whose folder of runs the test works; its own folder is tmp_path."""
    monkeypatch.setenv("DRREPRO_RUNS", str(trained[0]))
    monkeypatch.chdir(tmp_path)
    return trained[1]


def predict(*words):
    return CliRunner().invoke(app, ["predict", *map(str, words)], catch_exceptions=False)


def by_json(*words):
    result = predict(*words, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def noise(path, size=(90, 70), mode="RGB", **options):
    Image.effect_noise(size, 80).convert(mode).save(path, **options)
    return path


def test_it_finds_what_the_evaluation_found(run_id, trained, data_folder):
    found = by_json(data_folder / "digits" / "images" / "test", f"weights=run:{run_id}", "--threshold", "0.05")
    truth = json.loads((data_folder / "digits" / "test.json").read_text())
    names = {image["id"]: image["file_name"] for image in truth["images"]}
    classes = {category["id"]: category["name"] for category in truth["categories"]}
    expected = defaultdict(list)
    for row in json.loads(gzip.decompress((trained[0] / run_id / "detections.json.gz").read_bytes())):
        x, y, width, height = row["bbox"]
        box = [x, y, x + width, y + height]
        expected[names[row["image_id"]]].append((row["score"], classes[row["category_id"]], box))
    assert len(found["images"]) == len(expected) == 8
    for image in found["images"]:
        rows = expected[Path(image["image"]).name]
        assert len(image["detections"]) == len(rows) == 100
        scores = [row["score"] for row in image["detections"]]
        assert scores == pytest.approx([row[0] for row in rows], abs=1e-5)
        same = [
            own["class"] == name and own["box"] == pytest.approx(box, abs=1e-2)
            for own, (_, name, box) in zip(image["detections"], rows, strict=True)
        ]
        assert np.mean(same) > 0.9  # scores that agree to the last digits may change places


def test_images_of_any_mode_and_size_are_drawn(run_id, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    modes = {
        "a.jpg": "L",
        "b.jpg": "CMYK",
        "c.png": "P",
        "d.png": "RGBA",
        "e.png": "1",
        "f.tif": "I;16",
        "g.webp": "RGB",
    }
    for name, mode in modes.items():
        noise(folder / name, mode=mode)
    noise(folder / "h.jpg", size=(700, 20))
    noise(folder / "i.png", size=(1, 1))
    (folder / "notes.txt").write_text("not an image, and not taken for one")
    found = by_json(folder, f"weights={run_id}", "--output", tmp_path / "out")
    assert [image["image"] for image in found["images"]] == [
        str(folder / f"{name}") for name in sorted([*modes, "h.jpg", "i.png"])
    ]
    assert found["unreadable"] == []
    for image in found["images"]:
        with Image.open(image["drawing"]) as drawn:
            assert drawn.width % image["width"] == 0
        for row in image["detections"]:
            x1, y1, x2, y2 = row["box"]
            assert -0.01 <= x1 <= x2 <= image["width"] + 0.01
            assert -0.01 <= y1 <= y2 <= image["height"] + 0.01


def test_an_image_is_turned_by_its_exif_tag(run_id, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    upright = Image.effect_noise((90, 70), 80).convert("RGB")
    upright.save("upright.png")
    upright.transpose(Image.Transpose.ROTATE_90).save("turned.png", exif=exif)
    found = by_json("upright.png", "turned.png", f"weights={run_id}")["images"]
    assert [(image["width"], image["height"]) for image in found] == [(90, 70), (90, 70)]
    assert found[0]["detections"] == found[1]["detections"]


def test_unreadable_images_are_named_and_the_others_go_on(run_id, tmp_path):
    noise(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    whole = noise(tmp_path / "cut.jpg", size=(200, 200)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    result = predict("bad.png", "cut.jpg", "good.png", f"weights={run_id}", "--json", "--quiet")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [image["image"] for image in found["images"]] == ["good.png"]
    assert [row["image"] for row in found["unreadable"]] == ["bad.png", "cut.jpg"]
    assert "error: bad.png: cannot be decoded" in result.stderr
    assert "error: cut.jpg: cannot be decoded" in result.stderr
    assert (tmp_path / "predictions" / "good.jpg").is_file()


def test_the_threshold_is_the_recipes_unless_another_is_given(run_id, tmp_path):
    noise(tmp_path / "a.png")
    found = by_json("a.png", f"weights={run_id}")
    assert (found["weights"], found["score_threshold"]) == (f"run:{run_id}", 0.2)
    assert all(row["score"] > 0.2 for row in found["images"][0]["detections"])
    none = by_json("a.png", f"weights={run_id}", "--threshold", "1", "runtime.device=cpu")
    assert none["images"][0]["detections"] == []
    text = predict("a.png", f"weights={run_id}", "--threshold", "1").stdout
    assert text == "predictions/a.jpg  0 detections on a.png\n"


def test_every_image_gets_a_drawing_of_its_own(run_id, tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        noise(tmp_path / folder / "same.png")
    noise(tmp_path / "x" / "same.bmp")
    found = by_json("x", "y", "x/same.png", f"weights={run_id}", "--threshold", "1")
    drawings = [image["drawing"] for image in found["images"]]
    assert drawings == [f"predictions/same{number}.jpg" for number in ("", "-2", "-3")]


def test_an_image_is_never_overwritten(run_id, tmp_path):
    before = noise(tmp_path / "a.jpg").read_bytes()
    with pytest.raises(UsageError, match=r"a.jpg: a drawing would take the place of this image"):
        predict("a.jpg", f"weights={run_id}", "--output", ".")
    assert (tmp_path / "a.jpg").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.png"], "nowhere.png: no such file or folder"),
        (["empty"], "empty: no image in this folder"),
        (["a.png", "weights=run:nothing"], "nothing: no finished run here"),
        (["a.png", "weights=nothing"], "weights=RUN_ID is needed"),
        (["a.png"], "weights=RUN_ID is needed"),
        (["a.png", "wieghts=x"], "wieghts: no such key; did you mean weights?"),
    ],
)
def test_wrong_usage_is_refused_before_any_work(run_id, tmp_path, words, message):
    (tmp_path / "empty").mkdir()
    noise(tmp_path / "a.png")
    with pytest.raises(UsageError) as error:
        predict(*words)
    assert message in str(error.value)
    assert not (tmp_path / "predictions").exists()


def test_keys_that_the_weights_have_settled_are_refused(run_id, tmp_path):
    noise(tmp_path / "a.png")
    with pytest.raises(UsageError, match="loss=focal: settled by the trained weights"):
        predict("a.png", f"weights={run_id}", "loss=focal")
