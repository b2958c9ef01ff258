"""One step of training: gradients of all parts, clipped, and the update. Nothing here makes a GPU wait but `read`."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from drrepro.data.loader import Batch
from drrepro.distributed import sum_over_ranks, world
from drrepro.errors import RunError
from drrepro.losses import ClassificationLoss
from drrepro.losses.contract import Normalizer
from drrepro.models.anchors import decode, match, paired_iou
from drrepro.models.retinanet import RetinaNet
from drrepro.schema import Config
from drrepro.training.box_loss import box_loss
from drrepro.training.diagnose import first_not_finite
from drrepro.training.normalize import normalizers

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # of the forward pass
Targets = tuple[Tensor, Tensor, Tensor]  # anchors (A, 4), labels (B, A), and the boxes that they matched (B, A, 4)
Part = tuple[Batch, Targets]  # of a step: what a forward pass takes


class NotFiniteError(RunError):
    """A loss or gradient was not finite; ``step`` says when, and no parameter was updated from then on."""

    def __init__(self, step: int, what: str, numbers: dict[str, float]) -> None:
        shown = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
        super().__init__(f"the {what} is not finite ({shown})")
        self.step = step


class Learner:
    """What a step changes, and what it is computed with; ``detector`` is the model as the ranks share it.

    The terms of the loss stay on the device, and so does the first step whose loss or gradient is not finite: from
    then on the optimizer skips its updates, until `read` says so.
    """

    def __init__(
        self,
        model: RetinaNet,
        detector: nn.Module,
        loss: ClassificationLoss,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        config: Config,
    ) -> None:
        self.model, self.detector, self.loss = model, detector, loss
        self.optimizer, self.scaler, self.config = optimizer, scaler, config
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        device = self.trained[0].device
        self.failed = torch.full((), -1, device=device)  # 2 * step, + 1 where it is the gradient
        self.terms = torch.zeros(2, device=device)

    def step(self, number: int, parts: list[Part]) -> None:
        """Update the parameters from the parts of step ``number``."""
        terms = add_gradients(self.detector, self.loss, self.scaler, parts, self.config)
        finite = terms.sum().isfinite()
        gradients = [p.grad for p in self.trained if p.grad is not None]
        gradients[0].add_(torch.where(finite & (self.failed < 0), 0.0, torch.nan))  # which float16's scaler skips
        norm_finite = self._clip(gradients)
        code = torch.where(finite, torch.where(norm_finite, -1, 2 * number + 1), 2 * number)
        self.terms = torch.where(self.failed < 0, terms, self.terms)
        self.failed = torch.where(self.failed < 0, code, self.failed)
        self.optimizer.found_inf = (self.failed >= 0).float()  # type: ignore[attr-defined]  # of fused optimizers
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def _clip(self, gradients: list[Tensor]) -> Tensor:
        """Limit the norm of the gradients; return whether it is finite.

        float16's may not be while its scaler finds the scale: that step is skipped, and counts as finite here.
        """
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm(gradients)
        if self.config.schedule.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.trained, self.config.schedule.clip_norm, norm)
        return norm.isfinite() | self.scaler.is_enabled()

    def read(self) -> dict[str, float]:
        """Return the last step's loss and its terms, for which a GPU waits.

        Raises NotFiniteError once a loss or gradient was not finite.
        """
        failed, classified, box = torch.cat([self.failed[None].double(), self.terms.double()]).tolist()
        numbers = {"loss": classified + box, "classification": classified, "box": box}
        if failed >= 0:
            step, of_gradient = divmod(int(failed), 2)
            raise NotFiniteError(step, "gradient" if of_gradient else "loss", numbers)
        return numbers

    def explain(self, error: NotFiniteError, parts: list[Part]) -> str:
        """Say what is not finite, where that begins, and what helps; ``parts`` are those of the step that failed."""
        self.optimizer.zero_grad()
        add_gradients(self.detector, self.loss, self.scaler, parts, self.config)
        precision = self.config.schedule.precision
        found = [first_not_finite(self.model, batch.images, DTYPES[precision]) for batch, _ in parts]
        first = next((place for place in found if place), "the loss itself")
        rounded = "" if precision == "fp32" else " or set schedule.precision=fp32"
        return f"{error}, first {first}; lower schedule.lr{rounded}"


def add_gradients(
    detector: nn.Module,
    classification: ClassificationLoss,
    scaler: torch.amp.GradScaler,
    parts: list[Part],
    config: Config,
) -> Tensor:
    """Add to the parameters the (scaled) gradients of one step's loss, part by part, and return its terms, (2,).

    Every part has as many images, and what losses are divided by is counted over all of them first, so how images of
    one size are split makes no difference, see loss.normalize. Of each part alone are its padding, batch norm where it
    is trained, and what a loss ranks or counts together: DR loss with scope batch, GHM-C, AP loss, rank & sort loss.
    """
    dtype = DTYPES[config.schedule.precision]
    counted = normalizers([labels for _, (_, labels, _) in parts], config.loss.normalize)
    terms = []
    for i, (batch, target) in enumerate(parts):
        last = i == len(parts) - 1
        with nullcontext() if last or world() == 1 else detector.no_sync():  # type: ignore[operator]
            with torch.autocast(batch.images.device.type, dtype, enabled=dtype is not None):
                logits, deltas = detector(batch.images)
            share = _share(logits, deltas, target, counted[i], len(parts), classification, config)
            loss = scaler.scale(share.sum() * world())  # times world(), since the ranks' gradients are averaged
            loss.backward()  # type: ignore[no-untyped-call]
        terms.append(share.detach())
    return sum_over_ranks(torch.stack(terms).sum(0))


def _share(
    logits: Tensor,
    deltas: Tensor,
    target: Targets,
    normalizer: Normalizer,
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
    classified = classification.share(logits, labels, normalizer, parts * world(), **beside)
    return torch.stack([classified, box_loss(deltas, anchors, labels, boxes, config.loss, weights, normalizer)])


def with_targets(batch: Batch, model: RetinaNet, config: Config) -> Part:
    """Return a batch with what its anchors are to learn."""
    anchors = torch.cat(model.anchors_of(batch.images))
    return batch, (anchors, *match(anchors, batch.boxes, batch.labels, config.matcher))
