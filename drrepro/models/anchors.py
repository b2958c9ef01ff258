"""Anchors, matcher and box coder.

Shapes: B images, A anchors of all levels, G ground-truth boxes of an image (padded to the batch's largest).
Boxes are x1 y1 x2 y2, continuous: x2 - x1 is the width. maskrcnn-benchmark's inclusive pixels (x2 = x1 + w - 1,
and + 1 in every width) are the same numbers once x2 and y2 are stored one larger, as here.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from drrepro.schema import MatcherConfig, ModelConfig

STRIDES = (8, 16, 32, 64, 128)  # P3..P7
KEPT = 64  # image sizes whose anchors are kept


def cell_anchors(config: ModelConfig, level: int) -> Tensor:
    """Return the (ratios * scales, 4) anchors of one cell of a level (0 is P3), ratio first, then scale."""
    rows = []
    for ratio in config.anchor_ratios:
        for scale in config.anchor_scales:
            if config.convention == "maskrcnn_benchmark":
                # The ratio-shaped box of the stride's area is rounded, then scaled; centred on (stride - 1) / 2
                # in inclusive pixels, which is stride / 2 in continuous ones.
                stride = STRIDES[level]
                base_width = float(np.round(np.sqrt(stride * stride / ratio)))
                factor = config.anchor_sizes[level] * scale / stride
                width, height = factor * base_width, factor * float(np.round(base_width * ratio))
                center = stride / 2
                rows.append([center - width / 2, center - height / 2, center + width / 2, center + height / 2])
            else:
                # torchvision: centred on 0, corners rounded; its RetinaNet's sizes are whole pixels.
                size = config.anchor_sizes[level] * scale
                size = int(size) if config.convention == "torchvision" else size
                width, height = size / math.sqrt(ratio), size * math.sqrt(ratio)
                rows.append([round(v) for v in (-width / 2, -height / 2, width / 2, height / 2)])
    return torch.tensor(rows, dtype=torch.float32)


class AnchorGrid:
    """The anchors of every cell of an image, kept for the image sizes seen last."""

    def __init__(self, config: ModelConfig) -> None:
        self.cells = [cell_anchors(config, level) for level in range(len(STRIDES))]
        self.per_cell = len(self.cells[0])
        self.convention = config.convention
        self.kept: dict[tuple[int, int, torch.device], list[Tensor]] = {}

    def levels(self, height: int, width: int, device: torch.device) -> list[Tensor]:
        """Return one (h * w * per_cell, 4) tensor a level, row by row, the anchors of a cell together."""
        key = height, width, device
        if key not in self.kept:
            if len(self.kept) >= KEPT:
                del self.kept[next(iter(self.kept))]
            self.kept[key] = [self._level(i, height, width).to(device) for i in range(len(STRIDES))]
        return self.kept[key]

    def _level(self, level: int, height: int, width: int) -> Tensor:
        stride = STRIDES[level]
        size = (-(-height // stride), -(-width // stride))  # every layer that halves rounds up
        step = (stride, stride)
        if self.convention == "torchvision":  # less than the stride where a last cell leaves the image
            step = (height // size[0], width // size[1])
        return _shift(self.cells[level], size, step)


def _shift(cell: Tensor, size: tuple[int, int], step: tuple[int, int]) -> Tensor:
    y, x = torch.meshgrid(torch.arange(size[0]) * step[0], torch.arange(size[1]) * step[1], indexing="ij")
    corners = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    return (corners + cell).reshape(-1, 4)


def match(anchors: Tensor, boxes: Tensor, labels: Tensor, config: MatcherConfig) -> tuple[Tensor, Tensor]:
    """Give each anchor a label and the box that it should regress to.

    anchors (A, 4); boxes (B, G, 4); labels (B, G) int64 in 1..K, 0 where padded.
    Returns labels (B, A) int64: the class, 0 background, -1 ignored; and boxes (B, A, 4).
    """
    if boxes.shape[1] == 0:
        return labels.new_zeros(len(boxes), len(anchors)), anchors.expand(len(boxes), -1, -1)
    real = labels > 0  # (B, G)
    iou = box_iou(anchors, boxes.flatten(0, 1)).unflatten(1, real.shape).transpose(0, 1)  # (B, A, G)
    iou = iou.masked_fill(~real[:, None], -1.0)
    best, index = iou.max(dim=2)  # (B, A)
    foreground = best >= config.fg_iou
    if config.low_quality:
        best_of_box = iou.amax(dim=1, keepdim=True)  # (B, 1, G)
        foreground |= ((iou == best_of_box) & (best_of_box > 0)).any(dim=2)
    background = ~foreground & (best < config.bg_iou)
    matched = labels.gather(1, index)
    matched = torch.where(foreground, matched, torch.where(background, 0, -1))
    return matched, boxes.gather(1, index[..., None].expand(-1, -1, 4))


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the IoU (...) of each of ``boxes`` (..., 4) with its partner in ``others`` (..., 4)."""
    corner = torch.minimum(boxes[..., 2:], others[..., 2:])
    common = (corner - torch.maximum(boxes[..., :2], others[..., :2])).clamp(min=0).prod(-1)
    areas = [(b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1) for b in (boxes, others)]
    return common / (areas[0] + areas[1] - common).clamp(min=torch.finfo(boxes.dtype).tiny)


def encode(boxes: Tensor, anchors: Tensor, weights: list[float]) -> Tensor:
    """Return the (..., 4) regression targets wx dx, wy dy, ww dw, wh dh of ``boxes`` relative to ``anchors``."""
    box, anchor = box_convert(boxes, "xyxy", "cxcywh"), box_convert(anchors, "xyxy", "cxcywh")
    centers = (box[..., :2] - anchor[..., :2]) / anchor[..., 2:]
    sizes = torch.log(box[..., 2:] / anchor[..., 2:])
    return torch.cat([centers, sizes], dim=-1) * boxes.new_tensor(weights)


def decode(deltas: Tensor, anchors: Tensor, weights: list[float], growth: float) -> Tensor:
    """Invert `encode`; a box is at most ``growth`` times wider or higher than its anchor."""
    deltas = deltas / deltas.new_tensor(weights)
    anchor = box_convert(anchors, "xyxy", "cxcywh")
    centers = anchor[..., :2] + deltas[..., :2] * anchor[..., 2:]
    half = 0.5 * anchor[..., 2:] * deltas[..., 2:].clamp(max=math.log(growth)).exp()
    return torch.cat([centers - half, centers + half], dim=-1)
