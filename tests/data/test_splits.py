import json
import shutil

import pytest

from drrepro.config import compose
from drrepro.data.download import MARKER
from drrepro.data.published import FETCHED
from drrepro.data.splits import configured_splits, open_split
from drrepro.errors import UsageError
from drrepro.schema import DataConfig


def test_a_missing_image_is_named_and_counted(data_folder, tmp_path):
    shutil.copytree(data_folder / "digits", tmp_path / "mine")
    content = json.loads((tmp_path / "mine" / "test.json").read_text())
    content["images"][0]["file_name"] = "gone.jpg"
    (tmp_path / "mine" / "test.json").write_text(json.dumps(content))
    config = DataConfig(name="mine", test_json="test.json", test_images="images/test")
    with pytest.raises(UsageError, match=r"1 of 8 images \(test\) are bad;[^\n]*\n[^\n]*gone\.jpg: not found"):
        open_split(config, "test", tmp_path)


def test_relative_paths_lie_in_the_folder_of_the_set(data_folder, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    shutil.copytree(data_folder / "digits", tmp_path / "data" / "coco2017")
    named = DataConfig(name="coco2017", test_json="test.json", test_images="images/test")
    assert len(open_split(named, "test", tmp_path / "data").samples) == 8
    monkeypatch.chdir(tmp_path / "data" / "coco2017")
    mine = compose(["data=coco_custom", "data.test_json=test.json", "data.test_images=images/test"]).data
    assert mine.root == str(tmp_path / "data" / "coco2017")
    monkeypatch.chdir(tmp_path)
    assert len(open_split(mine, "test", tmp_path / "nowhere").samples) == 8
    absolute = {
        "test_json": str(data_folder / "digits" / "test.json"),
        "test_images": str(data_folder / "digits/images"),
    }
    with pytest.raises(UsageError, match=rf"{data_folder}/digits/images/00001\.jpg"):
        open_split(DataConfig(name="mine", root="/elsewhere", **absolute), "test", tmp_path)


def test_a_set_that_can_be_fetched_says_so(tmp_path):
    config = compose(["data=coco2017", "model=resnet50"]).data
    with pytest.raises(UsageError, match=r"coco2017: not here; run `drrepro data fetch coco2017`"):
        open_split(config, "train", tmp_path)
    (tmp_path / "coco2017").mkdir()
    with pytest.raises(UsageError, match=r"instances_train2017\.json: not found"):  # somebody's own layout
        open_split(config, "train", tmp_path)
    whole = {archive.name: archive.md5 for archive in FETCHED["coco2017"][1]}
    partly = dict(list(whole.items())[:-1])
    for fetched, message in (
        (partly, "coco2017: not wholly fetched; `drrepro data fetch coco2017` goes on"),
        (whole, "not found"),
    ):
        (tmp_path / "coco2017" / MARKER).write_text(json.dumps(fetched))
        with pytest.raises(UsageError, match=message):
            open_split(config, "train", tmp_path)
    testdev = DataConfig(name="coco2017_testdev")
    with pytest.raises(UsageError, match="coco2017: not wholly fetched; `drrepro data fetch coco2017_testdev`"):
        open_split(testdev, "test", tmp_path)


def test_the_papers_sets():
    coco, voc = compose(["data=coco2017", "model=resnet50"]), compose(["data=voc2007", "model=resnet50"])
    assert (coco.data.paper, coco.input.scale, coco.schedule.steps) == ("coco2017", 800, 90_000)
    assert (voc.data.paper, voc.input.scale, voc.schedule.steps, voc.schedule.lr) == ("voc2007", 800, 8_750, 0.008)
    assert coco.data.root is voc.data.root is None  # so that a run's id does not depend on where the images lie
    assert len(voc.data.classes) == 20
    assert voc.data.classes == sorted(voc.data.classes)
    assert configured_splits(voc.data) == ["train", "test"]
