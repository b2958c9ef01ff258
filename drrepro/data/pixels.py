"""Decode one image to 8-bit RGB."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from drrepro.data.dataset import Sample
from drrepro.errors import RunError

UNREADABLE = (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError)  # what Pillow raises


def open_upright(path: Path) -> Image.Image:
    """Decode an image without annotations as a viewer shows it: turned by its EXIF tag, in 8-bit RGB.

    Raises RunError, naming the file, when it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return _as_rgb(ImageOps.exif_transpose(image))
    except UNREADABLE as error:
        raise RunError(f"{path}: cannot be decoded ({error})") from None


def decode(sample: Sample) -> Image.Image:
    """Return 8-bit RGB: the pixels as stored, turned by their EXIF tag only if they are annotated so.

    COCO is annotated on the stored pixels [M]; other sets were annotated as a viewer shows the image.
    Raises RunError, naming the file, when it cannot be decoded or is not of the annotated size.
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
