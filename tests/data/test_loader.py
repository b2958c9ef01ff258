from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data._utils.pin_memory import pin_memory

from drrepro.data.coco import read_coco
from drrepro.data.dataset import Sample
from drrepro.data.loader import ImageSource, Item, collate, evaluation_batches, training_batches, training_keys
from drrepro.errors import RunError
from drrepro.schema import InputConfig


def sample(path, width, height, boxes=((1.0, 2.0, 5.0, 8.0),)):
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    count = len(boxes)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Sample(1, path, width, height, boxes, np.ones(count, np.int64), areas, np.zeros(count, np.bool_))


def test_keys_are_a_function_of_seed_and_step_and_each_epoch_sees_every_image():
    assert training_keys(10, 4, 0.5, 3, 7) == training_keys(10, 4, 0.5, 3, 7)
    assert training_keys(10, 4, 0.5, 3, 7) != training_keys(10, 4, 0.5, 4, 7)
    epoch = [key[0] for step in range(5) for key in training_keys(10, 4, 0.5, 0, step)][:10]
    assert sorted(epoch) == list(range(10))
    flips = [key[1] for step in range(250) for key in training_keys(10, 4, 0.5, 0, step)]
    assert 0.4 < np.mean(flips) < 0.6
    assert not any(key[1] for step in range(50) for key in training_keys(10, 4, 0.0, 0, step))


def test_without_grouping_the_batches_are_those_of_the_committed_results():
    assert training_keys(5, 3, 0.5, 0, 0) == [(2, False), (4, False), (3, False)]
    assert training_keys(5, 3, 0.5, 7, 4) == [(2, True), (3, False), (4, False)]


def grouped(count, batch, portraits, seed=0, epochs=4):
    """The indices of so many epochs of grouped batches."""
    steps = range(-(-epochs * count // batch))
    return [[k[0] for k in training_keys(count, batch, 0.5, seed, step, frozenset(portraits))] for step in steps]


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 9), st.data())
def test_grouped_epochs_see_every_image_once_and_mix_one_batch_at_most(count, batch, data):
    portraits = data.draw(st.sets(st.integers(0, count - 1)))
    batches = grouped(count, batch, portraits)
    flat = [index for own in batches for index in own]
    for epoch in range(4):
        assert sorted(flat[epoch * count : (epoch + 1) * count]) == list(range(count))
    commoner = max(len(portraits), count - len(portraits))
    if commoner >= 2 * batch:  # enough to begin and to end an epoch with
        mixed = sum(len({index in portraits for index in own}) > 1 for own in batches[: 4 * count // batch])
        assert mixed <= 4


def test_a_mixed_batch_comes_only_where_an_orientation_fills_no_more():
    portraits = set(range(30))
    for own in grouped(100, 10, portraits):  # 30 and 70 images: nothing is left over
        assert len({index in portraits for index in own}) == 1
    assert grouped(100, 10, portraits) != grouped(100, 10, portraits, seed=1)
    kinds = [own[0] in portraits for own in grouped(100, 10, portraits, epochs=1)]
    assert kinds not in (sorted(kinds), sorted(kinds, reverse=True))  # in random order


def test_a_grouped_step_needs_no_step_before_it(data_folder):
    portraits = frozenset(range(0, 100, 3))
    forward = [training_keys(100, 8, 0.5, 5, step, portraits) for step in range(40)]
    backward = [training_keys(100, 8, 0.5, 5, step, portraits) for step in reversed(range(40))]
    assert forward == backward[::-1]


def test_portraits_stay_with_portraits_in_what_is_read(tmp_path):
    samples = []
    for number in range(12):
        size = (32, 48) if number % 3 == 0 else (48, 32)
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
        samples.append(sample(tmp_path / f"{number}.png", *size))
    for group, count in ((True, 1), (False, 2)):
        config = InputConfig(scale=32, group_by_aspect=group)
        batches = list(training_batches(samples, config, 4, 0, range(6), 0))
        assert max(len({tuple(item.pixels.shape) for item in own}) for own in batches) == count
        resumed = next(training_batches(samples, config, 4, 0, range(4, 6), 0))
        assert [item.sample.path for item in resumed] == [item.sample.path for item in batches[4]]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_workers_equal_those_of_this_process(data_folder, workers):
    dataset = read_coco(data_folder / "digits" / "train.json", data_folder / "digits" / "images" / "train")
    config = InputConfig(scale=64, flip=0.5)
    first = list(training_batches(dataset.samples, config, 3, 0, range(2, 4), 0))
    second = list(training_batches(dataset.samples, config, 3, 0, range(2, 4), workers))
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(x.pixels, y.pixels) and x.flip == y.flip for x, y in zip(a, b, strict=True))
        assert [x.sample.path for x in a] == [y.sample.path for y in b]


def test_flip_and_resize_move_the_boxes_with_the_pixels(tmp_path):
    pixels = np.zeros((100, 160, 3), np.uint8)
    pixels[20:40, 30:80] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    source = ImageSource([sample(tmp_path / "a.png", 160, 100, [[30, 20, 80, 40]])], InputConfig(scale=50), keep=False)
    config = InputConfig(mean=[0.0] * 3, size_divisor=1)
    for flip, corners in ((False, [15, 10, 40, 20]), (True, [40, 10, 65, 20])):
        batch = collate([source[0, flip]], config, torch.device("cpu"))
        assert batch.images.shape == (1, 3, 50, 80)
        x1, y1, x2, y2 = batch.boxes[0, 0].round().long().tolist()
        assert [x1, y1, x2, y2] == corners
        bright = batch.images[0, 0] > 127
        assert bright[y1:y2, x1:x2].all()
        assert bright.sum() == (y2 - y1) * (x2 - x1)


@pytest.mark.parametrize("scale", [40, 64])
def test_caffe_and_torchvision_normalisation_equal_their_formulas(tmp_path, scale):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    caffe = InputConfig(scale=scale)
    imagenet = InputConfig(scale=scale, bgr=False, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    size = (scale * 80 // 64, scale)
    resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)).astype(np.float64)
    expected = {
        True: resized[..., ::-1] - [102.9801, 115.9465, 122.7717],
        False: (resized / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    }
    levels = 0 if scale == 64 else 2  # that Pillow's resize may differ by
    for config in (caffe, imagenet):
        atol = 1e-4 + levels / min(config.std)
        items = [ImageSource([sample(tmp_path / "a.png", 80, 64)], config, keep=False)[0, flip] for flip in (0, 1)]
        images = collate(items, config, torch.device("cpu")).images[:, :, : size[1], : size[0]].permute(0, 2, 3, 1)
        np.testing.assert_allclose(images[0], expected[config.bgr], atol=atol)
        np.testing.assert_allclose(images[1], expected[config.bgr][:, ::-1], atol=atol)
        assert images.dtype == torch.float32


def test_crowds_are_no_targets(tmp_path):
    crowd = replace(sample(tmp_path / "a.png", 8, 8, [[0, 0, 4, 4], [2, 2, 8, 8]]), ignore=np.array([True, False]))
    boxes, labels = Item(crowd, torch.zeros(3, 16, 16, dtype=torch.uint8), False).targets()
    assert boxes.tolist() == [[4, 4, 16, 16]]
    assert labels.tolist() == [1]


def test_pinning_reaches_the_pixels(tmp_path, monkeypatch):
    pinned = torch.ones(3, 4, 4, dtype=torch.uint8)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned)
    item = Item(sample(tmp_path / "a.png", 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8), True)
    (out,) = pin_memory([item])  # what the DataLoader does to a batch
    assert out.pixels is pinned
    assert out.flip


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_batches_are_pinned_and_equal_those_of_the_cpu(data_folder):
    dataset = read_coco(data_folder / "digits" / "train.json", data_folder / "digits" / "images" / "train")
    config = InputConfig(scale=64)
    for workers in (0, 2):
        for items in training_batches(dataset.samples, config, 3, 0, range(3), workers, pin=True):
            assert all(item.pixels.is_pinned() for item in items)
            batches = [collate(items, config, torch.device(name)) for name in ("cpu", "cuda")]
            for own, other in zip(*((b.images, b.boxes, b.labels) for b in batches), strict=True):
                torch.testing.assert_close(own, other.cpu())


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


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_is_named_in_one_line_from_a_worker_too(tmp_path, workers):
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(RunError) as caught:
        next(evaluation_batches([sample(tmp_path / "text.jpg", 64, 64)], InputConfig(), 1, workers))
    assert str(caught.value).startswith(f"{tmp_path}/text.jpg: cannot be decoded")
    assert "\n" not in str(caught.value)
