"""Decode and resize one image: 8-bit pixels in, 8-bit pixels out."""

import numpy as np
import torch
from PIL import Image
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
    height, width = target_size(sample.height, sample.width, config.scale, config.max_ratio)
    if (width, height) != pixels.size:
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()
