"""A thousand images of which three are bad, each in its own way, before a run and before a sweep."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from drrepro.cli import app
from drrepro.config import compose, load_config, run_id
from drrepro.data import images
from drrepro.data.splits import open_splits
from drrepro.errors import UsageError
from drrepro.files import write_json
from drrepro.runs.records import read_record
from tests.conftest import TINY

IMAGES = {"train": 900, "test": 100}
BAD = ("train-00007.jpg", "train-00345.jpg", "test-00042.jpg")
KEYS = [f"data.{split}_{part}" for split in IMAGES for part in ("json", "images")]
PATHS = ["train.json", "images", "test.json", "images"]


@pytest.fixture(scope="session")
def thousand(tmp_path_factory):
    """A set in COCO's format whose 1,000 images are good; not to be touched."""
    root = tmp_path_factory.mktemp("thousand") / "mine"
    (root / "images").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "images" / "one.jpg")
    content = (root / "images" / "one.jpg").read_bytes()
    for split, count in IMAGES.items():
        names = [f"{split}-{i:05}.jpg" for i in range(count)]
        for name in names:
            (root / "images" / name).write_bytes(content)
        boxes = [{"image_id": i, "category_id": 1, "bbox": [8, 8, 32, 24]} for i in range(count)]
        entries = [{"id": i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(names)]
        write_json(
            root / f"{split}.json",
            {"images": entries, "categories": [{"id": 1, "name": "noise"}], "annotations": boxes},
        )
    return root


@pytest.fixture
def dirty(thousand, tmp_path):
    """The set with one image that is missing, one that is cut off and one of another size."""
    root = tmp_path / "mine"
    for path in thousand.rglob("*.*"):
        copy = root / path.relative_to(thousand)
        copy.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, copy)
    missing, cut, other = (root / "images" / name for name in BAD)
    missing.unlink()
    whole = cut.read_bytes()
    cut.unlink()
    cut.write_bytes(whole[: len(whole) // 2])
    other.unlink()
    Image.new("RGB", (63, 48)).save(other)
    return root


def overrides(root, *more):
    own = [f"{key}={path}" for key, path in zip(KEYS, PATHS, strict=True)]
    return ["data=coco_custom", f"data.root={root}", *own, *TINY, *more]


def open_all(root, tmp_path, *more, report=lambda *_: None):
    config = compose(overrides(root, *more))
    return open_splits(config.data, list(IMAGES), tmp_path / "cache", report)


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_run_and_a_sweep_name_all_bad_images_before_they_start(dirty, tmp_path, command):
    arguments = ["train"] if command == "train" else ["sweep", "thresholds"]
    done = CliRunner().invoke(app, [*arguments, "--quiet", *overrides(dirty)])
    assert isinstance(done.exception, UsageError)
    first, *lines = str(done.exception).splitlines()
    assert first == (
        "data=coco_custom: 3 of 1,000 images (train, test) are bad; "
        "mend them, or leave them out with data.bad_images=drop"
    )
    missing, cut, other = (dirty / "images" / name for name in BAD)
    assert lines[0] == f"  {missing}: not found"
    assert lines[1].startswith(f"  {cut}: cannot be read (")
    assert lines[2] == f"  {other}: is 63 x 48 px, its annotation says 64 x 48"
    assert len(lines) == 3
    assert not list((tmp_path / "runs").glob("*coco_custom-*"))


def test_dropped_images_are_in_the_record_and_in_the_caption_of_the_tables(dirty, tmp_path):
    dropping = overrides(dirty, "data.bad_images=drop", "evaluation.images_per_batch=50")
    swept = CliRunner().invoke(app, ["sweep", "thresholds", "--quiet", *dropping], catch_exceptions=False)
    assert swept.exit_code == 0, swept.output
    assert f"3 bad images left out: {', '.join(sorted(BAD))}" in " ".join(swept.stdout.split())
    records = [read_record(path.parent) for path in (tmp_path / "runs").glob("*/record.json")]
    assert len(records) == 2
    for record in records:
        assert (record["data"]["train_images"], record["data"]["test_images"]) == (898, 99)
        assert [Path(path).name for path in record["data"]["dropped_images"]] == list(BAD)
        assert "its annotation says" in record["data"]["dropped_images"][str(dirty / "images" / BAD[2])]


def test_what_was_right_is_not_opened_again(thousand, tmp_path, monkeypatch):
    stages = []
    whole = open_all(thousand, tmp_path, report=lambda stage, done, total, numbers: stages.append((stage, done, total)))
    assert stages[-1] == ("check images", 1000, 1000)
    assert [len(dataset.samples) for dataset in whole.values()] == [900, 100]
    monkeypatch.setattr(images, "find_problem", lambda sample: pytest.fail(f"{sample.path} is opened again"))
    assert open_all(thousand, tmp_path)["test"].left_out == {}


def test_what_has_changed_since_is_looked_at_again(dirty, thousand, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="3 of 1,000"):
        open_all(dirty, tmp_path)
    looked_at = []
    look = images.find_problem
    monkeypatch.setattr(images, "find_problem", lambda sample: looked_at.append(sample.path.name) or look(sample))
    with pytest.raises(UsageError, match="3 of 1,000"):
        open_all(dirty, tmp_path)
    assert looked_at == list(BAD)
    for name in BAD:  # mended
        (dirty / "images" / name).unlink(missing_ok=True)
        os.link(thousand / "images" / name, dirty / "images" / name)
    touched = dirty / "images" / "test-00000.jpg"
    content = touched.read_bytes()
    touched.unlink()
    touched.write_bytes(content)  # of the same size, at another time
    looked_at.clear()
    open_all(dirty, tmp_path)
    assert looked_at == [*BAD[:2], touched.name, BAD[2]]


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": ', b"[" * 200_000, b'{"x": 7}'])
def test_a_damaged_memory_is_none(dirty, tmp_path, content):
    (tmp_path / "cache" / ".headers").mkdir(parents=True)
    images._memory(dirty, tmp_path / "cache").write_bytes(content)
    with pytest.raises(UsageError, match="3 of 1,000"):
        open_all(dirty, tmp_path)


def test_a_memory_that_cannot_be_written_is_done_without(dirty, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(open_all(dirty, tmp_path, "data.bad_images=drop")["train"].samples) == 898


def test_many_bad_images_are_counted_and_ten_spelled_out(thousand, tmp_path):
    with pytest.raises(UsageError) as raised:
        open_all(thousand, tmp_path, "data.train_images=nowhere")
    lines = str(raised.value).splitlines()
    assert "900 of 1,000 images" in lines[0]
    assert lines[-1] == "  and 890 more; `drrepro data check` lists all"
    assert len(lines) == 12
    with pytest.raises(UsageError, match="the train split: none of 900 images is good"):
        open_all(thousand, tmp_path, "data.train_images=nowhere", "data.bad_images=drop")


def test_only_dropping_makes_another_run(thousand):
    failing, dropping = compose(overrides(thousand)), compose(overrides(thousand, "data.bad_images=drop"))
    assert run_id(failing) != run_id(dropping)
    with pytest.raises(UsageError, match=r"data\.bad_images=skip: must be fail or drop"):
        compose(overrides(thousand, "data.bad_images=skip"))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_a_file_whose_end_is_missing_is_decoded(thousand, tmp_path, suffix):
    sample = open_all(thousand, tmp_path)["test"].samples[0]
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    path = tmp_path / f"one{suffix}"
    Image.fromarray(noise).save(path)
    sample = images.replace(sample, path=path)
    assert images.find_problem(sample) == ("", "")
    path.write_bytes(path.read_bytes() + b"\0" * 5000)  # whole, though its end lies elsewhere
    assert images.find_problem(sample) == ("", "")
    path.write_bytes(path.read_bytes()[:-8000])
    assert (images.find_problem(sample)[0] == "unreadable") == (suffix != ".bmp")


def test_configurations_of_before_are_read(tmp_path):
    (tmp_path / "config.yaml").write_text("data:\n  name: mine\n  root: null\n")
    assert load_config(tmp_path / "config.yaml").data.bad_images == "fail"


def test_the_memory_is_one_file_a_data_set(thousand, tmp_path):
    open_all(thousand, tmp_path)
    (memory,) = (tmp_path / "cache" / ".headers").iterdir()
    assert len(json.loads(memory.read_text())) == 1000
