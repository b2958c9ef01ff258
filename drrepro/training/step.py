"""One step of training: gradients of all parts, clipped, and the update."""

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from drrepro.data.loader import Batch
from drrepro.distributed import sum_over_ranks, world
from drrepro.errors import RunError
from drrepro.losses import ClassificationLoss
from drrepro.models.anchors import decode, match, paired_iou
from drrepro.models.retinanet import RetinaNet
from drrepro.schema import Config
from drrepro.training.box_loss import box_loss
from drrepro.training.diagnose import first_not_finite

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # of the forward pass


@dataclass(frozen=True)
class Learner:
    """What a step changes, and what it is computed with; ``detector`` is the model as the ranks share it."""

    model: RetinaNet
    detector: nn.Module
    loss: ClassificationLoss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    config: Config

    def step(self, parts: list[Batch]) -> dict[str, float]:
        """Update the parameters from the parts of a step; return the loss and its terms.

        Raises RunError, naming where it begins, for a loss or gradient that is not finite; nothing is updated then.
        """
        numbers = add_gradients(self.detector, self.model, self.loss, self.scaler, parts, self.config)
        if not math.isfinite(numbers["loss"]):
            raise RunError(self._not_finite("loss", numbers, parts))
        if not self._clip():
            raise RunError(self._not_finite("gradient", numbers, parts))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return numbers

    def _clip(self) -> bool:
        """Limit the norm of the gradients; return False, leaving them as they are, where it is not finite.

        That is looked at on a CPU alone: a GPU would have to be waited for, and float16's scaler skips such steps
        itself.
        """
        clip_norm = self.config.schedule.clip_norm
        if clip_norm is None:
            return True
        self.scaler.unscale_(self.optimizer)
        parameters = list(self.model.parameters())
        look = parameters[0].device.type == "cpu" and not self.scaler.is_enabled()
        try:
            torch.nn.utils.clip_grad_norm_(parameters, clip_norm, error_if_nonfinite=look)
        except RuntimeError:
            return False
        return True

    def _not_finite(self, what: str, numbers: dict[str, float], parts: list[Batch]) -> str:
        """Say what is not finite, where that begins, and what helps."""
        shown = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
        precision = self.config.schedule.precision
        found = [first_not_finite(self.model, part.images, DTYPES[precision]) for part in parts]
        first = next((place for place in found if place), "the loss itself")
        rounded = "" if precision == "fp32" else " or set schedule.precision=fp32"
        return f"the {what} is not finite ({shown}), first {first}; lower schedule.lr{rounded}"


def add_gradients(
    detector: nn.Module,
    model: RetinaNet,
    classification: ClassificationLoss,
    scaler: torch.amp.GradScaler,
    parts: list[Batch],
    config: Config,
) -> dict[str, float]:
    """Add to the parameters the (scaled) gradients of one step's loss, part by part, and return the loss and its terms.

    Every part has as many images, and what losses are divided by is counted over all of them first [I], so how images
    of one size are split makes no difference. Of each part alone are its padding, batch norm where it is trained, and
    what a loss ranks or counts together: DR loss with scope batch, GHM-C, AP loss, rank & sort loss.
    """
    dtype = DTYPES[config.schedule.precision]
    targets = [_targets(model, batch, config) for batch in parts]
    positives = sum_over_ranks(torch.stack([(labels > 0).sum() for _, labels, _ in targets]).sum())
    terms = torch.zeros(2, device=positives.device)
    for i, (batch, target) in enumerate(zip(parts, targets, strict=True)):
        last = i == len(parts) - 1
        with nullcontext() if last or world() == 1 else detector.no_sync():  # type: ignore[operator]
            with torch.autocast(batch.images.device.type, dtype, enabled=dtype is not None):
                logits, deltas = detector(batch.images)
            share = _share(logits, deltas, target, positives, len(parts), classification, config)
            loss = scaler.scale(share.sum() * world())  # times world(), since the ranks' gradients are averaged
            loss.backward()  # type: ignore[no-untyped-call]
        terms += share.detach()
    classified, box = sum_over_ranks(terms).tolist()
    return {"loss": classified + box, "classification": classified, "box": box}


def _share(
    logits: Tensor,
    deltas: Tensor,
    target: tuple[Tensor, Tensor, Tensor],
    positives: Tensor,
    parts: int,
    classification: ClassificationLoss,
    config: Config,
) -> Tensor:
    """Return a part's share of the classification and of the box loss, (2,)."""
    anchors, labels, boxes = target
    weights = config.model.box_weights
    beside = {}
    if classification.needs_ious:
        with torch.no_grad():
            predicted = decode(deltas.float(), anchors, weights, config.model.box_growth)
            beside["ious"] = torch.where(labels > 0, paired_iou(predicted, boxes), 0.0)
    classified = classification.share(logits, labels, positives, parts * world(), **beside)
    return torch.stack([classified, box_loss(deltas, anchors, labels, boxes, config.loss, weights, positives)])


def _targets(model: RetinaNet, batch: Batch, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Return the anchors (A, 4) of a batch, their labels (B, A) and the boxes that they matched (B, A, 4)."""
    anchors = torch.cat(model.anchors_of(batch.images))
    return anchors, *match(anchors, batch.boxes, batch.labels, config.matcher)
