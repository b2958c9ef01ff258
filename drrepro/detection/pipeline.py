"""The way from a batch to detections in the pixels of the files, the same for evaluating and for predicting."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from drrepro.data.ahead import HostCopy
from drrepro.data.dataset import Sample
from drrepro.data.loader import Batch
from drrepro.data.transforms import scale_boxes
from drrepro.evaluation.densities import EDGES, FINE
from drrepro.models.postprocess import Detections, above, select_candidates, suppress
from drrepro.models.retinanet import RetinaNet
from drrepro.schema import Config


@dataclass(frozen=True)
class Proposals:
    """What a forward pass gives of a batch, on its way to the CPU."""

    sizes: list[tuple[int, int]]  # (height, width) of each image as resized
    config: Config
    threshold: float
    copy: HostCopy

    def wait(self) -> tuple[list[Detections], list[Tensor]]:
        """Return of each image its candidates above the threshold, boxes as resized; and the histograms of `count`."""
        boxes, scores, labels, *counts = self.copy.wait()
        found = [Detections(*own) for own in zip(boxes, scores, labels.long(), strict=True)]
        pairs = zip(found, self.sizes, strict=True)
        return [above(own, size, self.config.model, self.threshold) for own, size in pairs], counts


@torch.inference_mode()
def propose(
    model: RetinaNet, batch: Batch, config: Config, threshold: float, labels: list[Tensor] | None = None
) -> Proposals:
    """Return the candidates of a batch, and for each (B, A) of ``labels`` the histograms of its scores, see `count`.

    All comes to the CPU in one copy, the only thing that a GPU waits for.
    """
    (logits, deltas), anchors = model(batch.images), model.anchors_of(batch.images)
    scores, per_level = logits.float().sigmoid(), config.evaluation.candidates_per_level
    found = [select_candidates(s, d, anchors, config.model, per_level) for s, d in zip(scores, deltas, strict=True)]
    boxes, best, classes = (torch.stack(parts) for parts in zip(*(vars(one).values() for one in found), strict=True))
    copy = HostCopy([boxes, best, classes.int(), *count(scores, labels or [])])
    return Proposals(batch.sizes, config, threshold, copy)


def count(scores: Tensor, labels: list[Tensor]) -> list[Tensor]:
    """Return for each (B, A) of ``labels`` the histograms of scores (B, A, K): (B, 2, FINE) int32.

    Background first, then foreground; what is ignored is in neither.
    """
    classes = torch.arange(scores.shape[2], dtype=torch.int32, device=scores.device)
    counts = []
    for i, own in enumerate(scores if labels else []):  # by image: it is the memory
        bins = torch.bucketize(own, _edges(scores.device), right=True, out_int32=True)
        counts.append([_histogram(bins, of_all[i][:, None], classes) for of_all in labels])
    return [torch.stack(own) for own in zip(*counts, strict=True)]


def _histogram(bins: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
    """Return (2, FINE) int32 of ``bins`` (A, K); each class is counted on its own, so that few meet in one count."""
    place = torch.where(labels < 0, 2 * FINE, bins + FINE * (labels == classes + 1).int())
    place = (place * len(classes) + classes).flatten()
    counts = torch.zeros((2 * FINE + 1) * len(classes), dtype=torch.int32, device=bins.device)
    counts.index_add_(0, place, counts.new_ones(1).expand(len(place)))
    return counts.view(-1, len(classes)).sum(1, dtype=torch.int32)[:-1].view(2, FINE)


@cache
def _edges(device: torch.device) -> Tensor:
    return torch.tensor(EDGES, dtype=torch.float32, device=device)


def keep(candidates: Detections, sample: Sample, size: tuple[int, int], iou: float, config: Config) -> Detections:
    """Return what is left at an NMS IoU, on the CPU, boxes (N, 4) float64 in the pixels of the file.

    ``size`` is (height, width) as resized.
    """
    kept = suppress(candidates, size, iou, config.evaluation.detections_per_image)
    scale = (sample.width / size[1], sample.height / size[0])
    boxes = scale_boxes(kept.boxes.double().cpu(), scale, config.model.inclusive)
    return Detections(boxes, kept.scores.cpu(), kept.labels.cpu())
