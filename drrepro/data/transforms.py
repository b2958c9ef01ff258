"""Decode and resize one image: 8-bit pixels in, 8-bit pixels out."""

import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from drrepro.data.dataset import Sample
from drrepro.errors import RunError
from drrepro.schema import InputConfig

UNREADABLE = (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError)  # what Pillow raises


def target_size(height: int, width: int, scale: int, max_ratio: float) -> tuple[int, int]:
    """Return (height, width) with the short side at ``scale``, unless the long one would exceed its limit [M] [R].

    The limit is scale * max_ratio, halves rounded up: 666.5 to 667 [R]; the other side is truncated to whole pixels.
    """
    short, long = min(height, width), max(height, width)
    limit = int(scale * max_ratio + 0.5)
    if scale * long / short > limit:
        scale = round(limit * short / long)
    scale = max(1, scale)  # of a picture a thousand times longer than wide
    other = int(scale * long / short)
    return (scale, other) if height <= width else (other, scale)


def load_image(sample: Sample, config: InputConfig) -> Tensor:
    """Decode and resize (bilinear) to a (3, h, w) uint8 tensor in RGB; in memory its channels are last.

    Raises RunError, naming the file, when it cannot be decoded or is not of the annotated size.
    """
    return resize(_decode(sample), config)


def resize(pixels: Image.Image, config: InputConfig) -> Tensor:
    """Resize an RGB image (bilinear) to a (3, h, w) uint8 tensor; in memory its channels are last.

    torch's antialiased resize is Pillow's [M], but for 1 or 2 of 255 levels in some values (1 in 700 of COCO's
    photographs), and faster.
    """
    height, width = target_size(pixels.height, pixels.width, config.scale, config.max_ratio)
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    if (width, height) == pixels.size:
        return image
    return functional.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]


def scale_boxes(boxes: Tensor, scale: tuple[float, float], inclusive: bool) -> Tensor:
    """Return boxes (N, 4), x2 - x1 the width, of an image that is resized by ``scale``, in x and y.

    ``inclusive``: as maskrcnn-benchmark [M], which scales the last pixel of a box, x2 - 1, and not its edge.
    """
    last = torch.tensor([0.0, 0.0, 1.0, 1.0]) * inclusive
    return (boxes - last) * torch.tensor([*scale, *scale], dtype=boxes.dtype) + last


def open_upright(path: Path) -> Image.Image:
    """Decode an image without annotations as a viewer shows it: turned by its EXIF tag, in 8-bit RGB.

    Raises RunError, naming the file, when it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return _as_rgb(ImageOps.exif_transpose(image))
    except UNREADABLE as error:
        raise RunError(f"{path}: cannot be decoded ({error})") from None


def _decode(sample: Sample) -> Image.Image:
    """Return 8-bit RGB: the pixels as stored, turned by their EXIF tag only if they are annotated so.

    COCO is annotated on the stored pixels [M]; other sets were annotated as a viewer shows the image.
    """
    annotated = (sample.width, sample.height)
    try:
        with Image.open(sample.path) as image:
            image.load()
            turned = image if image.size == annotated else ImageOps.exif_transpose(image)
            pixels = _as_rgb(turned)
    except UNREADABLE as error:
        raise RunError(f"{sample.path}: cannot be decoded ({error})") from None
    if pixels.size != annotated:
        size, wanted = (f"{width} x {height}" for width, height in (image.size, annotated))
        raise RunError(f"{sample.path}: is {size} px, its annotation says {wanted}")
    return pixels


def _as_rgb(image: Image.Image) -> Image.Image:
    """Convert grey, palette, CMYK and 16-bit images; an alpha channel is dropped."""
    if image.mode == "RGB":
        return image  # `convert` would copy it
    if image.mode.startswith("I"):  # 16 bits a pixel, which `convert` would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    image.info.pop("transparency", None)  # Pillow warns of one in a palette
    return image.convert("RGB")
