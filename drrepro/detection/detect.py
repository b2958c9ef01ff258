"""Run a detector over a data set: one forward pass for every score threshold and every NMS IoU."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from drrepro.data.ahead import one_behind
from drrepro.data.dataset import Dataset, Sample
from drrepro.data.loader import collate, evaluation_batches
from drrepro.detection.pipeline import Proposals, keep, propose
from drrepro.distributed import all_parts, own_share
from drrepro.evaluation.coco import Results
from drrepro.evaluation.densities import Densities, Matcher
from drrepro.models.anchors import match
from drrepro.models.postprocess import Detections
from drrepro.models.retinanet import RetinaNet
from drrepro.schema import Config
from drrepro.schema.model import MatcherConfig

Counts = dict[Matcher, dict[int, npt.NDArray[np.int32]]]  # by image id: (2, FINE), background and foreground


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
    counts: Counts = {matcher: {} for matcher in matchers_of(config)}
    done, own = 0, own_share(dataset.samples)
    for samples, proposals in one_behind(_forward(model, own, config, lowest, list(counts), device)):
        found, histograms = proposals.wait()
        for own_counts, of_batch in zip(counts.values(), histograms, strict=True):
            own_counts |= zip((sample.id for sample in samples), of_batch.numpy().copy(), strict=True)
        for candidates, sample, resized in zip(found, samples, proposals.sizes, strict=True):
            for iou in nms_ious:
                results[iou] += as_results(keep(candidates, sample, resized, iou, config), sample, dataset.category_ids)
        done += len(samples)
        progress(done, len(own))
    return _merge(all_parts((results, counts)))


def _forward(
    model: RetinaNet,
    samples: list[Sample],
    config: Config,
    lowest: float,
    matchers: list[Matcher],
    device: torch.device,
) -> Iterator[tuple[list[Sample], Proposals]]:
    """Yield the samples and proposals of each batch."""
    size, workers = config.evaluation.images_per_batch, config.runtime.workers
    for items in evaluation_batches(samples, config.input, size, workers, pin=device.type == "cuda"):
        batch = collate(items, config.input, device, config.model.inclusive)
        anchors = torch.cat(model.anchors_of(batch.images))
        # With low-quality matches, as both recipes have them [M].
        labels = [match(anchors, batch.boxes, batch.labels, MatcherConfig(*ious))[0] for ious in matchers]
        yield batch.samples, propose(model, batch, config, lowest, labels)


def matchers_of(config: Config) -> list[Matcher]:
    """Return the matchers that densities are measured with: the run's own, and those that all runs share."""
    shared = [(fg_iou, bg_iou) for fg_iou, bg_iou in config.evaluation.density_matchers]
    return list(dict.fromkeys([(config.matcher.fg_iou, config.matcher.bg_iou), *shared]))


def _merge(parts: list[tuple[dict[float, Results], Counts]]) -> tuple[dict[float, Results], Densities]:
    results = {iou: [row for own, _ in parts for row in own[iou]] for iou in parts[0][0]}
    whole: Counts = {matcher: {k: v for _, own in parts for k, v in own[matcher].items()} for matcher in parts[0][1]}
    arrays = {matcher: np.stack([own[i] for i in sorted(own)], axis=1) for matcher, own in whole.items()}
    return results, Densities(arrays)


def as_results(found: Detections, sample: Sample, category_ids: list[int]) -> Results:
    """Return detections of a file in COCO result format."""
    corners = found.boxes.clone()
    corners[:, 2:] -= corners[:, :2]
    rows = zip(corners.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    return [
        {"image_id": sample.id, "category_id": category_ids[label - 1], "bbox": box, "score": score}
        for box, score, label in rows
    ]
