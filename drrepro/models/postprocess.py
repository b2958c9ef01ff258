"""From scores and deltas to detections: the best of each level, filter by score, suppress."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import nms

from drrepro.models.anchors import decode
from drrepro.schema import ModelConfig


@dataclass(frozen=True)
class Detections:
    """N boxes of one image: boxes (N, 4) px, scores (N,), labels (N,) int64 in 1..K, best first after NMS."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __getitem__(self, index: Tensor) -> "Detections":
        return Detections(self.boxes[index], self.scores[index], self.labels[index])


def select_candidates(
    scores: Tensor, deltas: Tensor, anchors: list[Tensor], model: ModelConfig, per_level: int
) -> Detections:
    """Return the best ``per_level`` (anchor, class) pairs of each level of an image, whatever their scores.

    scores (A, K) and deltas (A, 4). A GPU need not wait: how many there are depends on no score.
    """
    kept = []
    lengths = [len(level) for level in anchors]
    for level, s, d in zip(anchors, torch.split(scores, lengths), torch.split(deltas, lengths), strict=True):
        flat = s.flatten()
        index = _best(flat, min(per_level, len(flat)))
        anchor, label = index // s.shape[1], index % s.shape[1]
        boxes = decode(d[anchor].float(), level[anchor], model.box_weights, model.box_growth)
        kept.append((boxes, torch.where(index < 0, 0.0, flat[index]), label + 1))
    return Detections(*(torch.cat(parts) for parts in zip(*kept, strict=True)))


def above(candidates: Detections, image_size: tuple[int, int], model: ModelConfig, threshold: float) -> Detections:
    """Return those with a score above ``threshold``, clipped to the image, (height, width).

    In float64, as the metrics compare them: the float32 nearest to 0.2 exceeds 0.2. maskrcnn-benchmark clips x1 and the
    last pixel, x2 - 1, to the pixels that there are, so what lies outside is left one pixel wide [M].
    """
    found = candidates[candidates.scores.double() > threshold]
    height, width = image_size
    pixel = int(model.inclusive)
    x1, y1, x2, y2 = found.boxes.unbind(1)
    clipped = (
        x1.clamp(0, width - pixel),
        y1.clamp(0, height - pixel),
        x2.clamp(pixel, width),
        y2.clamp(pixel, height),
    )
    return Detections(torch.stack(clipped, dim=1), found.scores, found.labels)


def suppress(candidates: Detections, image_size: tuple[int, int], iou: float, limit: int) -> Detections:
    """Suppress per class over all levels at the NMS threshold ``iou`` and keep the best ``limit``.

    Lowering the score threshold never changes what is kept above it: candidates and survivors come in one
    fixed order (score, then place), so those above a threshold are a prefix. torchvision's `batched_nms` would break
    this: it offsets each class by the largest coordinate present, so the rounding of an IoU depends on which other
    candidates there are. Here the offset depends on the image alone.
    """
    offset = candidates.labels[:, None] * (max(image_size) + 1)
    keep = nms(candidates.boxes.double() + offset, candidates.scores.double(), iou)
    return candidates[keep[:limit]]


def _best(scores: Tensor, count: int) -> Tensor:
    """Return the indices of the ``count`` largest scores, best first, ties by index; -1 in place of NaN."""
    last = scores.topk(count).values[-1]
    tied, higher = scores == last, scores > last
    room = count - higher.sum(dtype=torch.int32)
    chosen = higher | (tied & (tied.cumsum(0, dtype=torch.int32) <= room))
    index = torch.nonzero_static(chosen, size=count)[:, 0]
    return index[scores[index].argsort(descending=True, stable=True)]
