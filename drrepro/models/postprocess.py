"""From logits and deltas to detections: filter by score, decode, suppress."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, nms

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
    scores: Tensor,
    deltas: Tensor,
    anchors: list[Tensor],
    image_size: tuple[int, int],
    model: ModelConfig,
    threshold: float,
    per_level: int,
) -> Detections:
    """Keep the best ``per_level`` (anchor, class) pairs of each level with a score above ``threshold``.

    scores (A, K) and deltas (A, 4) of one image; ``image_size`` is (height, width), to which boxes are clipped.
    """
    kept = []
    lengths = [len(level) for level in anchors]
    for level, s, d in zip(anchors, torch.split(scores, lengths), torch.split(deltas, lengths), strict=True):
        index = _best(s.flatten(), per_level, threshold)
        anchor, label = index // s.shape[1], index % s.shape[1]
        boxes = clip_boxes_to_image(
            decode(d[anchor], level[anchor], model.box_weights, model.box_growth), list(image_size)
        )
        kept.append((boxes, s.flatten()[index], label + 1))
    return Detections(*(torch.cat(parts) for parts in zip(*kept, strict=True)))


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


def _best(scores: Tensor, count: int, threshold: float) -> Tensor:
    """Return the indices of the ``count`` largest scores that exceed ``threshold``, best first, ties by index."""
    last = scores.topk(min(count, len(scores))).values[-1]
    index = (scores >= last).nonzero()[:, 0]  # with all ties of the last place
    index = index[scores[index].argsort(descending=True, stable=True)[:count]]
    # In float64, as the metrics compare them: the float32 nearest to 0.2 exceeds 0.2.
    return index[scores[index].double() > threshold]
