import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from drrepro.data.transforms import load_image, scale_boxes, target_size
from drrepro.errors import RunError
from drrepro.schema import InputConfig
from tests.data.test_loader import sample

RATIO = InputConfig().max_ratio
ORIENTATION = 0x0112  # EXIF


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([400, 500, 600, 700, 800]))
def test_target_size_keeps_both_limits(height, width, scale):
    if max(height, width) > 20 * min(height, width):
        return
    h, w = target_size(height, width, scale, RATIO)
    assert min(h, w) <= scale
    ratio = max(height, width) / min(height, width)
    assert max(h, w) <= scale * RATIO + 0.5 + 0.5 * ratio  # the short side is rounded before the long one [M]
    assert (h <= w) == (height <= width) or h == w


def test_target_size_of_the_paper():
    assert target_size(480, 640, 800, RATIO) == (800, 1066)
    assert target_size(427, 640, 400, RATIO) == (400, 599)
    assert target_size(128, 160, 64, RATIO) == (64, 80)


@pytest.mark.parametrize(("scale", "limit"), [(400, 667), (500, 833), (600, 1000), (700, 1166), (800, 1333)])
def test_the_long_side_is_limited_as_released(scale, limit):
    for short in (100, 200, 333):  # of a long side of 1000 px
        expected = round(limit * short / 1000)
        assert target_size(short, 1000, scale, RATIO) == (expected, int(expected * 1000 / short))
        assert target_size(1000, short, scale, RATIO) == (int(expected * 1000 / short), expected)
    assert target_size(1000, 1, scale, RATIO) == (1000, 1)


def drawing(width=64, height=48):
    """A picture whose colours grow to the right and downwards, and of which no two sides look alike."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return (255 * np.stack([x, y, x * y], axis=-1)).astype(np.uint8)


def load(path, width=64, height=48):
    return load_image(sample(path, width, height), InputConfig(scale=min(width, height))).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_pixels_count_unless_the_annotation_fits_the_turned_image_only(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(drawing()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(load(tmp_path / "a.png"), drawing())
    if orientation < 5:  # mirrored or upside down: of the same size
        with pytest.raises(RunError, match=r"a\.png: is 64 x 48 px, its annotation says 48 x 64"):
            load(tmp_path / "a.png", 48, 64)
    else:
        turned = load(tmp_path / "a.png", 48, 64)
        corners = {5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}  # where the stored first pixel is to be seen
        assert turned[corners[orientation]].max() == 0
        assert turned.shape == (64, 48, 3)


def test_a_turned_jpeg_is_resized_as_annotated(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(drawing()).save(tmp_path / "a.jpg", exif=exif)
    annotated = sample(tmp_path / "a.jpg", 48, 64)
    assert load_image(annotated, InputConfig(scale=24)).shape == (3, 32, 24)
    np.testing.assert_allclose(load(tmp_path / "a.jpg", 48, 64), np.rot90(drawing(), -1), atol=12)


@pytest.mark.parametrize(("mode", "name"), [("L", "a.jpg"), ("LA", "a.png"), ("L", "a.png"), ("1", "a.png")])
def test_grey_is_the_same_in_all_channels(tmp_path, mode, name):
    grey = Image.fromarray(drawing()).convert("L").convert(mode)
    grey.save(tmp_path / name)
    pixels = load(tmp_path / name)
    assert (pixels == pixels[..., :1]).all()
    np.testing.assert_allclose(pixels[..., 0], np.asarray(grey.convert("L")), atol=4)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(load(tmp_path / name)[..., 1], values // 256)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "RGBA", "P"])
def test_colours_survive_other_modes(tmp_path, mode):
    name = {"CMYK": "a.jpg", "YCbCr": "a.jpg"}.get(mode, "a.png")
    image = Image.fromarray(drawing()).convert(mode)
    options = {"transparency": bytes(range(256))} if mode == "P" else {"quality": 95} if name == "a.jpg" else {}
    image.save(tmp_path / name, **options)
    assert np.abs(load(tmp_path / name).astype(int) - np.asarray(image.convert("RGB"))).mean() < 3


@pytest.mark.parametrize("suffix", ["jpg", "png", "ppm", "gif"])
def test_no_damage_passes_as_another_error(tmp_path, suffix):
    Image.fromarray(drawing()).save(tmp_path / f"a.{suffix}")
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.3 else whole)
        for place in rng.integers(0, min(len(damaged), 300) + 1, 3):
            damaged[place : place + 1] = rng.bytes(1)
        (tmp_path / f"a.{suffix}").write_bytes(damaged)
        with contextlib.suppress(RunError):
            assert load(tmp_path / f"a.{suffix}").shape == (48, 64, 3)
            continue
        refused += 1
    assert refused > 5


def test_bad_images_are_named(tmp_path):
    Image.fromarray(drawing()).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=r"half\.jpg: cannot be decoded"):
        load(tmp_path / "half.jpg")
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(RunError, match=r"text\.jpg: cannot be decoded"):
        load(tmp_path / "text.jpg")
    with pytest.raises(RunError, match=r"a\.jpg: is 64 x 48 px, its annotation says 32 x 48"):
        load(tmp_path / "a.jpg", 32, 48)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    Image.fromarray(drawing()).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(RunError, match=r"a\.png: cannot be decoded \(.*decompression bomb"):
        load(tmp_path / "a.png")


def test_inclusive_boxes_are_scaled_by_their_last_pixels():
    """As maskrcnn-benchmark: x2 = x + w - 1 is scaled, and one added when a box is written as x, y, w, h again."""
    boxes = torch.tensor([[10.0, 20.0, 50.0, 100.0]], dtype=torch.float64)
    x1, y1, x2, y2 = 10 * 1.25, 20 * 1.5, (50 - 1) * 1.25, (100 - 1) * 1.5
    scaled = scale_boxes(boxes, (1.25, 1.5), inclusive=True)
    torch.testing.assert_close(scaled, torch.tensor([[x1, y1, x2 + 1, y2 + 1]], dtype=torch.float64))
    torch.testing.assert_close(scale_boxes(scaled, (1 / 1.25, 1 / 1.5), inclusive=True), boxes)
    assert scale_boxes(boxes, (2.0, 2.0), inclusive=False).tolist() == [[20, 40, 100, 200]]
