"""The way from a batch to detections in the pixels of the files, the same for evaluating and for predicting."""

from dataclasses import dataclass

from torch import Tensor

from drrepro.data.dataset import Sample
from drrepro.data.loader import Batch
from drrepro.data.transforms import scale_boxes
from drrepro.models.postprocess import Detections, select_candidates, suppress
from drrepro.models.retinanet import RetinaNet
from drrepro.schema import Config


@dataclass(frozen=True)
class Candidates:
    """What a forward pass gives: the scores (B, A, K), the anchors of each level, and of each image its candidates."""

    scores: Tensor
    anchors: list[Tensor]
    of_image: list[Detections]


def propose(model: RetinaNet, batch: Batch, config: Config, threshold: float) -> Candidates:
    """Return the candidates above a score threshold, boxes as resized."""
    (logits, deltas), anchors = model(batch.images), model.anchors_of(batch.images)
    scores, per_level = logits.float().sigmoid(), config.evaluation.candidates_per_level
    of_image = [
        select_candidates(scores[i], deltas[i].float(), anchors, size, config.model, threshold, per_level)
        for i, size in enumerate(batch.sizes)
    ]
    return Candidates(scores, anchors, of_image)


def keep(candidates: Detections, sample: Sample, size: tuple[int, int], iou: float, config: Config) -> Detections:
    """Return what is left at an NMS IoU, on the CPU, boxes (N, 4) float64 in the pixels of the file.

    ``size`` is (height, width) as resized.
    """
    kept = suppress(candidates, size, iou, config.evaluation.detections_per_image)
    scale = (sample.width / size[1], sample.height / size[0])
    boxes = scale_boxes(kept.boxes.double().cpu(), scale, config.model.inclusive)
    return Detections(boxes, kept.scores.cpu(), kept.labels.cpu())
