"""Decode and resize one image: 8-bit pixels in, 8-bit pixels out."""

import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from drrepro.data.dataset import Sample
from drrepro.errors import RunError
from drrepro.schema import InputConfig


def target_size(height: int, width: int, scale: int, max_ratio: float) -> tuple[int, int]:
    """Return (height, width) with the short side at ``scale``, unless the long one would exceed its limit [M] [R].

    The limit is round(scale * max_ratio); the other side is truncated to whole pixels.
    """
    short, long = min(height, width), max(height, width)
    limit = round(scale * max_ratio)
    if scale * long / short > limit:
        scale = round(limit * short / long)
    scale = max(1, scale)  # of a picture a thousand times longer than wide
    other = int(scale * long / short)
    return (scale, other) if height <= width else (other, scale)


def load_image(sample: Sample, config: InputConfig) -> Tensor:
    """Decode and resize (bilinear) to a (3, h, w) uint8 tensor in RGB.

    Raises RunError, naming the file, when it cannot be decoded or is not of the annotated size.
    """
    try:
        with Image.open(sample.path) as image:
            pixels = image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise RunError(f"{sample.path}: cannot be decoded ({error})") from None
    if pixels.size != (sample.width, sample.height):
        annotated = f"{sample.width} x {sample.height}"
        raise RunError(f"{sample.path}: is {pixels.width} x {pixels.height} px, its annotation says {annotated}")
    return resize(pixels, config)


def resize(pixels: Image.Image, config: InputConfig) -> Tensor:
    """Resize an RGB image (bilinear) to a (3, h, w) uint8 tensor."""
    height, width = target_size(pixels.height, pixels.width, config.scale, config.max_ratio)
    if (width, height) != pixels.size:
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()


def open_upright(path: Path) -> Image.Image:
    """Decode an image without annotations as a viewer shows it: turned by its EXIF tag, in 8-bit RGB.

    Raises RunError, naming the file, when it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return _as_rgb(ImageOps.exif_transpose(image))
    except (
        OSError,
        ValueError,
        SyntaxError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:  # Pillow's, by fuzzing
        raise RunError(f"{path}: cannot be decoded ({error})") from None


def _as_rgb(image: Image.Image) -> Image.Image:
    """Convert grey, palette, CMYK and 16-bit images; an alpha channel is dropped."""
    if image.mode.startswith("I"):  # 16 bits a pixel, which `convert` would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    image.info.pop("transparency", None)  # Pillow warns of one in a palette
    return image.convert("RGB")
