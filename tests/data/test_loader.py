import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from drrepro.data.coco import read_coco
from drrepro.data.dataset import Sample
from drrepro.data.loader import ImageSource, collate, evaluation_batches, training_batches, training_keys
from drrepro.data.transforms import load_image, target_size
from drrepro.errors import RunError
from drrepro.schema import InputConfig


def sample(path, width, height, boxes=((1.0, 2.0, 5.0, 8.0),)):
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    count = len(boxes)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Sample(1, path, width, height, boxes, np.ones(count, np.int64), areas, np.zeros(count, np.bool_))


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([400, 500, 600, 700, 800]))
def test_target_size_keeps_both_limits(height, width, scale):
    if max(height, width) > 20 * min(height, width):
        return
    h, w = target_size(height, width, scale, 1333 / 800)
    assert min(h, w) <= scale
    ratio = max(height, width) / min(height, width)
    assert max(h, w) <= round(scale * 1333 / 800) + 0.5 * ratio  # the short side is rounded before the long one [M]
    assert (h <= w) == (height <= width) or h == w


def test_target_size_of_the_paper():
    assert target_size(480, 640, 800, 1333 / 800) == (800, 1066)
    assert target_size(427, 640, 400, 1333 / 800) == (400, 599)
    assert target_size(300, 900, 400, 1333 / 800) == (222, 666)
    assert target_size(128, 160, 64, 1333 / 800) == (64, 80)


def test_keys_are_a_function_of_seed_and_step_and_each_epoch_sees_every_image():
    assert training_keys(10, 4, 0.5, 3, 7) == training_keys(10, 4, 0.5, 3, 7)
    assert training_keys(10, 4, 0.5, 3, 7) != training_keys(10, 4, 0.5, 4, 7)
    epoch = [key[0] for step in range(5) for key in training_keys(10, 4, 0.5, 0, step)][:10]
    assert sorted(epoch) == list(range(10))
    flips = [key[1] for step in range(250) for key in training_keys(10, 4, 0.5, 0, step)]
    assert 0.4 < np.mean(flips) < 0.6
    assert not any(key[1] for step in range(50) for key in training_keys(10, 4, 0.0, 0, step))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_workers_equal_those_of_this_process(data_folder, workers):
    dataset = read_coco(data_folder / "digits" / "train.json", data_folder / "digits" / "images" / "train")
    config = InputConfig(scale=64, flip=0.5)
    first = list(training_batches(dataset.samples, config, 3, 0, range(2, 4), 0))
    second = list(training_batches(dataset.samples, config, 3, 0, range(2, 4), workers))
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(x.pixels, y.pixels) and torch.equal(x.boxes, y.boxes) for x, y in zip(a, b, strict=True))


def test_flip_and_resize_move_the_boxes_with_the_pixels(tmp_path):
    pixels = np.zeros((100, 160, 3), np.uint8)
    pixels[20:40, 30:80] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    source = ImageSource([sample(tmp_path / "a.png", 160, 100, [[30, 20, 80, 40]])], InputConfig(scale=50), keep=False)
    for flip in (False, True):
        item = source[0, flip]
        assert item.pixels.shape == (3, 50, 80)
        x1, y1, x2, y2 = item.boxes[0].round().long().tolist()
        bright = item.pixels[0] > 127
        assert bright[y1:y2, x1:x2].all()
        assert bright.sum() == (y2 - y1) * (x2 - x1)


def test_collate_normalises_and_pads_with_zeros(tmp_path):
    Image.new("RGB", (50, 40), (10, 20, 30)).save(tmp_path / "a.png")
    Image.new("RGB", (40, 60), (10, 20, 30)).save(tmp_path / "b.png")
    samples = [sample(tmp_path / "a.png", 50, 40), sample(tmp_path / "b.png", 40, 60, [])]
    config = InputConfig(scale=40, bgr=True, mean=[1.0, 2.0, 3.0], std=[2.0, 2.0, 2.0])
    batch = collate(next(evaluation_batches(samples, config, 2, 0)), config, torch.device("cpu"))
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.sizes == [(40, 50), (60, 40)]
    assert batch.images[0, :, 0, 0].tolist() == [(30 - 1) / 2, (20 - 2) / 2, (10 - 3) / 2]
    assert (batch.images[0, :, 40:] == 0).all()
    assert batch.labels.tolist() == [[1], [0]]


def test_bad_images_are_named(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=r"half\.jpg: cannot be decoded"):
        load_image(sample(tmp_path / "half.jpg", 64, 64), InputConfig())
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(RunError, match=r"text\.jpg: cannot be decoded"):
        load_image(sample(tmp_path / "text.jpg", 64, 64), InputConfig())
    with pytest.raises(RunError, match=r"a\.jpg: is 64 x 64 px, its annotation says 32 x 64"):
        load_image(sample(tmp_path / "a.jpg", 32, 64), InputConfig())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_is_named_in_one_line_from_a_worker_too(tmp_path, workers):
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(RunError) as caught:
        next(evaluation_batches([sample(tmp_path / "text.jpg", 64, 64)], InputConfig(), 1, workers))
    assert str(caught.value).startswith(f"{tmp_path}/text.jpg: cannot be decoded")
    assert "\n" not in str(caught.value)
