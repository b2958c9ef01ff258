"""Resize one image: 8-bit pixels in, 8-bit pixels out."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from drrepro.data.dataset import Sample
from drrepro.data.pixels import decode
from drrepro.schema import InputConfig


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
    return resize(decode(sample), config)


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
