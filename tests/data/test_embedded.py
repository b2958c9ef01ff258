import itertools
import json

import numpy as np
import pytest

from drrepro.data import digits, letters, scenes
from drrepro.data.coco import read_coco
from drrepro.data.embedded import MANIFEST, make_embedded, require_embedded
from drrepro.data.transforms import load_image
from drrepro.data.voc import read_voc
from drrepro.errors import UsageError
from drrepro.schema import InputConfig


def nothing(done, total):
    pass


@pytest.mark.parametrize("name", ["digits", "letters"])
def test_the_same_files_every_time(name, data_folder, tmp_path):
    digest = make_embedded(name, tmp_path, nothing, limit=8)
    assert digest == require_embedded(name, data_folder / name)
    calls = []
    assert make_embedded(name, tmp_path, lambda *a: calls.append(a), limit=8) == digest
    assert calls == []


def test_a_touched_set_is_refused_and_written_again(tmp_path):
    digest = make_embedded("digits", tmp_path, nothing, limit=2)
    image = next((tmp_path / "digits" / "images" / "test").iterdir())
    image.write_bytes(image.read_bytes()[:100])
    with pytest.raises(UsageError, match="changed since it was written; run `drrepro data make`"):
        require_embedded("digits", tmp_path / "digits")
    assert make_embedded("digits", tmp_path, nothing, limit=2) == digest
    assert require_embedded("digits", tmp_path / "digits") == digest


def test_what_is_not_ours_is_left_alone(tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "thesis.txt").write_text("do not lose")
    with pytest.raises(UsageError, match="was not written by drrepro"):
        make_embedded("digits", tmp_path, nothing, limit=2)
    assert (tmp_path / "digits" / "thesis.txt").exists()
    with pytest.raises(UsageError, match="numbers: not an embedded data set; choose from digits, letters"):
        make_embedded("numbers", tmp_path, nothing)
    (tmp_path / "digits" / MANIFEST).write_text("{")
    with pytest.raises(UsageError, match=r"manifest\.json: damaged"):
        require_embedded("digits", tmp_path / "digits")


def test_handwriting_and_typefaces_are_disjoint():
    shares = sorted(digits.SHARES.values())
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(shares))
    from sklearn.datasets import load_digits

    data = load_digits()
    pools = [digits._pool(data.images, data.target, share) for share in shares]
    assert sum(len(own) for pool in pools for own in pool) == len(data.images)
    assert not set(letters.TYPEFACES["trainval"]) & (set(letters.TYPEFACES["test"]) | set(letters.TYPEFACES["tune"]))
    assert len(letters.CLASSES) == len(set(letters.CLASSES)) == 20


def test_sizes_asked_for():
    assert digits.IMAGES["train"] >= 1000
    assert digits.IMAGES["tune"] >= 200
    assert digits.IMAGES["test"] >= 400
    assert letters.IMAGES["trainval"] >= 800
    assert letters.IMAGES["tune"] >= 100
    assert letters.IMAGES["test"] >= 300


def test_objects_are_where_the_boxes_say_and_some_images_are_empty():
    rng = np.random.default_rng(0)
    photos = scenes.photographs()
    from sklearn.datasets import load_digits

    data = load_digits()
    pool = digits._pool(data.images, data.target, (0.0, 1.0))
    painted = [scenes.paint_scene(rng, photos, digits._glyphs(rng, pool), noise=0.02) for _ in range(300)]
    sides = [max(b[2] - b[0], b[3] - b[1]) for scene in painted for b in scene.boxes]
    assert min(sides) >= 10
    assert max(sides) <= 64
    assert 2 <= sum(not scene.boxes for scene in painted) <= 40
    for scene in painted:
        for x1, y1, x2, y2 in scene.boxes:
            assert 0 <= x1 < x2 <= scenes.WIDTH
            assert 0 <= y1 < y2 <= scenes.HEIGHT


def test_both_sets_are_read_by_the_ordinary_readers(data_folder):
    coco = read_coco(data_folder / "digits" / "train.json", data_folder / "digits" / "images" / "train")
    voc = read_voc(data_folder / "letters", "trainval", list(letters.CLASSES))
    for dataset in (coco, voc):
        assert len(dataset.samples) == 8
        assert dataset.dropped == []
        assert load_image(dataset.samples[0], InputConfig(scale=128)).shape == (3, 128, 160)
    content = json.loads((data_folder / "digits" / MANIFEST).read_text())
    assert content["limit"] == 8
