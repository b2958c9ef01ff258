"""Anchors, matcher and box coder.

Shapes: B images, A anchors of all levels, G ground-truth boxes of an image (padded to the batch's largest).
Boxes are x1 y1 x2 y2, continuous: x2 - x1 is the width. maskrcnn-benchmark's inclusive pixels (x2 = x1 + w - 1,
and + 1 in every width) are the same numbers once x2 and y2 are stored one larger, as here.
"""

import math

import numpy as np
import torch
from torch import Tensor

from drrepro.schema import MatcherConfig, ModelConfig

STRIDES = (8, 16, 32, 64, 128)  # P3..P7
KEPT = 64  # image sizes whose anchors are kept
CPU_PIECE, PIECE = 2**18, 2**21  # of the IoU of boxes and anchors: on a CPU what stays in cache


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
            levels = (self._level(i, height, width) for i in range(len(STRIDES)))
            pinned = (level.pin_memory() if device.type == "cuda" else level for level in levels)  # or it would wait
            self.kept[key] = [level.to(device, non_blocking=True) for level in pinned]
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
    """Give each anchor a label and the box that it should regress to; nothing makes a GPU wait.

    anchors (A, 4); boxes (B, G, 4); labels (B, G) int64 in 1..K, 0 where padded.
    Returns labels (B, A) int64: the class, 0 background, -1 ignored; and boxes (B, A, 4).
    """
    if boxes.shape[1] == 0:
        return labels.new_zeros(len(boxes), len(anchors)), anchors.expand(len(boxes), -1, -1)
    size = CPU_PIECE if anchors.device.type == "cpu" else PIECE
    images = max(1, size // (boxes.shape[1] * len(anchors)))
    groups = zip(torch.split(boxes, images), torch.split(labels, images), strict=True)
    matched, targets = zip(*(_match_group(anchors, *own, config, size) for own in groups), strict=True)
    return torch.cat(matched), torch.cat(targets, dim=1).movedim(0, 2)


def _match_group(
    anchors: Tensor, boxes: Tensor, labels: Tensor, config: MatcherConfig, size: int
) -> tuple[Tensor, Tensor]:
    """Return labels (b, A) and boxes (4, b, A), from pieces of the IoU (b, G, A): of an image of COCO it is 70 MB."""
    parts = torch.split(anchors, max(1, size // labels.numel()))
    best, index, best_of_box, ties = zip(*(_best(part, boxes, labels > 0) for part in parts), strict=True)
    iou, nearest = torch.cat(best, dim=1), torch.cat(index, dim=1)
    foreground = iou >= config.fg_iou
    if config.low_quality:
        by_part = torch.stack(best_of_box)  # (parts, b, G)
        highest = (by_part == by_part.amax(0)) & (by_part > 0)
        if len(parts) > 1:
            for tie, here in zip(ties, highest, strict=True):
                tie.logical_and_(here[..., None])
        tied = [tie.view(torch.uint8).amax(1) for tie in ties]  # as any(1), which is ten times slower on a CPU
        foreground |= torch.cat(tied, dim=1).bool()
    background = ~foreground & (iou < config.bg_iou)
    matched = torch.where(foreground, labels.gather(1, nearest), torch.where(background, 0, -1))
    return matched, torch.stack([side.gather(1, nearest) for side in boxes.unbind(2)])


def _best(anchors: Tensor, boxes: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the best IoU (b, a) of some anchors, with which box; that of each box (b, G), and what ties for it.

    Boxes that are not ``real`` (b, G) have an IoU below 0. A box that overlaps none has no ties.
    """
    iou = _pairwise_iou(boxes, anchors).sub_(2.0 * ~real[..., None])
    best, index = iou.max(dim=1)
    best_of_box = iou.amax(dim=2)
    needed = torch.where(best_of_box > 0, best_of_box, torch.inf)[..., None]
    return best, index, best_of_box, iou.eq_(needed).bool()  # by floats, which takes a CPU a third of the time


def _pairwise_iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return the IoU (b, G, a) as torchvision's box_iou has it, coordinate by coordinate: a fraction of the memory."""
    x1, y1, x2, y2 = boxes[..., None].unbind(2)  # (b, G, 1)
    u1, v1, u2, v2 = anchors.t().contiguous().unbind(0)  # (a,)
    common = torch.minimum(x2, u2).sub_(torch.maximum(x1, u1)).clamp_(min=0)
    common *= torch.minimum(y2, v2).sub_(torch.maximum(y1, v1)).clamp_(min=0)
    areas = (u2 - u1) * (v2 - v1) + (x2 - x1) * (y2 - y1)
    return common.div_(areas.sub_(common))


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the IoU (...) of each of ``boxes`` (..., 4) with its partner in ``others`` (..., 4)."""
    (x1, y1, x2, y2), (u1, v1, u2, v2) = boxes.unbind(-1), others.unbind(-1)
    width = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp(min=0)
    common = width * (torch.minimum(y2, v2) - torch.maximum(y1, v1)).clamp(min=0)
    areas = (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0) + (u2 - u1).clamp(min=0) * (v2 - v1).clamp(min=0)
    return common / (areas - common).clamp(min=torch.finfo(boxes.dtype).tiny)


def encode(boxes: Tensor, anchors: Tensor, weights: list[float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the regression targets wx dx, wy dy, ww dw, wh dh (...) of ``boxes`` (..., 4) relative to ``anchors``."""
    x, y, width, height = _centered(boxes)
    anchor_x, anchor_y, anchor_width, anchor_height = _centered(anchors)
    wx, wy, ww, wh = weights
    return (
        (x - anchor_x) / anchor_width * wx,
        (y - anchor_y) / anchor_height * wy,
        (width / anchor_width).log() * ww,
        (height / anchor_height).log() * wh,
    )


def decode(deltas: Tensor, anchors: Tensor, weights: list[float], growth: float) -> Tensor:
    """Invert `encode`; a box is at most ``growth`` times wider or higher than its anchor."""
    dx, dy, dw, dh = (own / weight for own, weight in zip(deltas.unbind(-1), weights, strict=True))
    x, y, width, height = _centered(anchors)
    x, y = x + dx * width, y + dy * height
    width, height = (
        0.5 * side * delta.clamp(max=math.log(growth)).exp() for side, delta in ((width, dw), (height, dh))
    )
    return torch.stack([x - width, y - height, x + width, y + height], dim=-1)


def _centered(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return centre x and y, width and height of boxes (..., 4)."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
