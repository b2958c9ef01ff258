import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from drrepro.cli import app
from drrepro.data import check
from drrepro.data.check import check_data
from drrepro.errors import UsageError
from drrepro.progress import silent
from drrepro.schema import DataConfig
from tests.conftest import shared

SET = DataConfig(
    name="mine", train_json="train.json", train_images="images/train", test_json="test.json", test_images="images/test"
)
KINDS = ["missing", "unreadable", "size", "outside", "degenerate", "other"]


@pytest.fixture
def copy(data_folder, tmp_path):
    """A set of eight images a split that a test may damage."""
    shutil.copytree(data_folder / "digits", tmp_path / "mine")
    return tmp_path / "mine"


def damage(folder, change):
    content = json.loads((folder / "test.json").read_text())
    change(content)
    (folder / "test.json").write_text(json.dumps(content))


def found(folder, config=SET, quick=False):
    """The problems of the test split, by kind; there must be none in the train split."""
    checks = check_data(config, folder.parent, quick, silent)
    assert not any(checks["train"]["problems"].values())
    assert list(checks["test"]["problems"]) == KINDS
    return {kind: lines for kind, lines in checks["test"]["problems"].items() if lines}


def test_a_good_set_is_counted(copy):
    content = json.loads((copy / "test.json").read_text())
    content["annotations"][0]["iscrowd"] = 1
    (copy / "test.json").write_text(json.dumps(content))
    stages = []
    checks = check_data(
        SET, copy.parent, False, lambda stage, done, total, numbers: stages.append((stage, done, total))
    )
    test = checks["test"]
    assert list(checks) == ["train", "test"]
    assert (test["images"], test["objects"], test["ignored"]) == (8, len(content["annotations"]), 1)
    assert test["empty"] == 8 - len({a["image_id"] for a in content["annotations"]})
    assert sum(test["classes"].values()) == test["objects"]
    assert list(test["classes"]) == [str(digit) for digit in range(10)]
    fives = [a for a in content["annotations"] if a["category_id"] == 6]
    assert test["classes"]["5"] == len(fives)
    assert test["problems"] == {kind: [] for kind in KINDS}
    assert ("check test", 8, 8) in stages


@pytest.mark.parametrize("quick", [False, True])
def test_missing_images_and_other_sizes_are_found_in_both_ways(copy, quick):
    (copy / "images" / "test" / "00001.jpg").unlink()
    damage(copy, lambda content: content["images"][1].update(width=161))
    problems = found(copy, quick=quick)
    assert problems["missing"] == [f"{copy / 'images' / 'test' / '00001.jpg'}: not found"]
    assert len(problems["size"]) == 1
    assert "00002.jpg: is 160 x 128 px, its annotation says 161 x 128" in problems["size"][0]


@pytest.mark.parametrize("few", [check.FEW, 0])
def test_broken_images_are_found_in_one_process_or_several(copy, monkeypatch, few):
    monkeypatch.setattr(check, "FEW", few)
    path = copy / "images" / "test" / "00003.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    for quick in (True, False):  # its end is missing
        problems = found(copy, quick=quick)
        assert list(problems) == ["unreadable"]
        assert "00003.jpg: cannot be read" in problems["unreadable"][0]
    Image.new("RGB", (160, 128)).save(path, "PNG")
    content = path.read_bytes()
    path.write_bytes(content[:45] + bytes(20) + content[65:])  # broken in the middle: only decoding shows it
    assert found(copy, quick=True) == {}
    assert "00003.jpg: cannot be decoded" in found(copy)["unreadable"][0]
    path.write_bytes(b"no image")
    assert "00003.jpg: cannot be read" in found(copy, quick=True)["unreadable"][0]


def test_boxes_outside_and_degenerate_ones_are_named(copy):
    def change(content):
        content["annotations"][0]["bbox"] = [-1.5, 0, 20, 20]
        content["annotations"][1]["bbox"] = [150, 100, 11, 28.5]  # rounded: less than a pixel outside
        content["annotations"][2]["bbox"] = [10, 10, 20, 0]

    damage(copy, change)
    problems = found(copy)
    assert list(problems) == ["outside", "degenerate"]
    assert "at -1.5 0 18.5 20 leaves the image of 160 x 128 px" in problems["outside"][0]
    assert len(problems["outside"]) == len(problems["degenerate"]) == 1
    assert "annotation 2 (id 3) is 20 x 0 px" in problems["degenerate"][0]


def test_published_counts_and_known_degenerate_boxes(copy, monkeypatch):
    config = DataConfig(**{**vars(SET), "name": "coco2017", "root": str(copy)})
    checks = check_data(config, copy.parent, True, silent)
    assert checks["test"]["expected"] == 5_000
    assert checks["train"]["problems"]["other"] == ["train: 8 images, 118,287 are published"]
    assert checks["test"]["problems"]["other"] == ["test: 8 images, 5,000 are published"]
    assert check.PUBLISHED["voc2007"] == {"train": 5_011, "test": 4_952}
    monkeypatch.setitem(check.DEGENERATE, ("coco2017", "test"), 1)
    damage(copy, lambda content: content["annotations"][0].update(bbox=[1, 2, 3, 0]))
    assert check_data(config, copy.parent, True, silent)["test"]["problems"]["degenerate"] == []
    damage(copy, lambda content: content["annotations"][1].update(bbox=[1, 2, 3, 0]))
    assert len(check_data(config, copy.parent, True, silent)["test"]["problems"]["degenerate"]) == 2


def test_turned_photographs_are_no_problem_of_a_quick_look(copy):
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 255, (160, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(copy / "images" / "test" / "00001.jpg", exif=exif)
    assert found(copy, quick=True) == {}


def run(*arguments):
    return CliRunner().invoke(app, ["data", "check", *arguments])


def test_the_command_says_what_is_wrong_and_exits_with_1(environment, copy, monkeypatch):
    good = run("digits")
    assert good.exit_code == 0
    assert "nothing wrong" in good.stdout
    monkeypatch.setenv("DRREPRO_DATA", str(copy.parent))
    copy.rename(copy.parent / "digits")
    (copy.parent / "digits" / "images" / "tune" / "00002.jpg").unlink()
    bad = run("digits", "--quick")
    assert bad.exit_code == 1
    assert "missing: " in bad.stdout
    assert "00002.jpg" in bad.stdout
    assert "changed since it was written" in bad.stdout
    document = json.loads(run("digits", "--quick", "--quiet", "--json").stdout)
    assert [len(document[split]["problems"]["missing"]) for split in ("train", "tune", "test")] == [0, 1, 0]
    with pytest.raises(UsageError, match="data=coco_custom: names no split; set its keys"):
        CliRunner().invoke(app, ["data", "check", "coco_custom"], catch_exceptions=False)


def test_real_photographs_of_coco():
    root = shared("coco2017_mini")
    keys = [f"{split}_{part}" for split in ("train", "test") for part in ("json", "images")]
    paths = ["annotations/instances_train2017.json", "train2017", "annotations/instances_val2017.json", "val2017"]
    checks = check_data(
        DataConfig(name="mini", root=str(root), **dict(zip(keys, paths, strict=True))), root, True, silent
    )
    assert (checks["train"]["images"], checks["test"]["images"]) == (100, 80)
    assert len(checks["train"]["classes"]) == 80
    assert checks["train"]["ignored"] > 0
    assert not any(lines for entry in checks.values() for lines in entry["problems"].values())
