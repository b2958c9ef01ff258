"""Run a detector over a data set: one forward pass for every score threshold and every NMS IoU."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from drrepro.data.dataset import Dataset, Sample
from drrepro.data.loader import Batch, collate, evaluation_batches
from drrepro.detection.pipeline import keep, propose
from drrepro.distributed import all_parts, own_share
from drrepro.evaluation.coco import Results
from drrepro.evaluation.densities import BINS, Densities
from drrepro.models.anchors import match
from drrepro.models.postprocess import Detections
from drrepro.models.retinanet import RetinaNet
from drrepro.schema import Config


@torch.inference_mode()
def detect(
    model: RetinaNet,
    dataset: Dataset,
    config: Config,
    nms_ious: list[float],
    device: torch.device,
    progress: Callable[[int, int], None],
) -> tuple[dict[float, Results], Densities]:
    """Return the detections above the lowest configured score threshold by NMS IoU, and the score densities.

    Each rank detects on its share of the images; each returns the whole. ``progress`` gets (images done, all).
    """
    model.eval()
    lowest = min([*config.evaluation.score_thresholds, config.evaluation.score_threshold])
    results: dict[float, Results] = {iou: [] for iou in nms_ious}
    densities = Densities(np.zeros(BINS, np.int64), np.zeros(BINS, np.int64))
    done, own = 0, own_share(dataset.samples)
    size, workers = config.evaluation.images_per_batch, config.runtime.workers
    batches = evaluation_batches(own, config.input, size, workers, pin=device.type == "cuda")
    for items in batches:
        batch = collate(items, config.input, device, config.model.inclusive)
        found = propose(model, batch, config, lowest)
        _count(densities, found.scores, batch, torch.cat(found.anchors), config)
        for candidates, sample, resized in zip(found.of_image, batch.samples, batch.sizes, strict=True):
            for iou in nms_ious:
                results[iou] += as_results(keep(candidates, sample, resized, iou, config), sample, dataset.category_ids)
        done += len(items)
        progress(done, len(own))
    return _merge(all_parts((results, densities)))


def _merge(parts: list[tuple[dict[float, Results], Densities]]) -> tuple[dict[float, Results], Densities]:
    results = {iou: [row for own, _ in parts for row in own[iou]] for iou in parts[0][0]}
    counts = (sum(getattr(own, name) for _, own in parts) for name in ("foreground", "background"))
    return results, Densities(*counts)


def as_results(found: Detections, sample: Sample, category_ids: list[int]) -> Results:
    """Return detections of a file in COCO result format."""
    corners = found.boxes.clone()
    corners[:, 2:] -= corners[:, :2]
    rows = zip(corners.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    return [
        {"image_id": sample.id, "category_id": category_ids[label - 1], "bbox": box, "score": score}
        for box, score, label in rows
    ]


def _count(densities: Densities, scores: Tensor, batch: Batch, anchors: Tensor, config: Config) -> None:
    labels, _ = match(anchors, batch.boxes, batch.labels, config.matcher)
    positive = labels[..., None] == torch.arange(1, scores.shape[2] + 1, device=labels.device)
    negative = ~positive & (labels >= 0)[..., None]
    for i in range(len(scores)):  # an image at a time: on a GPU the indices of a batch would fill gigabytes
        bins = (scores[i] * BINS).long().clamp_(max=BINS - 1)
        for counts, mask in ((densities.foreground, positive[i]), (densities.background, negative[i])):
            own = torch.where(mask, bins, BINS).flatten()
            counts += torch.bincount(own, minlength=BINS + 1)[:BINS].cpu().numpy()
