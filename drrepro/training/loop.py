"""The training loop."""

import json
import math
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from drrepro.data.dataset import Sample
from drrepro.data.loader import Batch, collate, training_batches
from drrepro.distributed import all_parts, first_buffers, on_any_rank, rank, sum_over_ranks, world
from drrepro.errors import RunError, UsageError
from drrepro.files import write_text
from drrepro.interrupt import deferred
from drrepro.losses import ClassificationLoss
from drrepro.losses.named import build_loss
from drrepro.models.anchors import match
from drrepro.models.retinanet import RetinaNet
from drrepro.progress import Report
from drrepro.schema import Config
from drrepro.training.box_loss import box_loss
from drrepro.training.checkpoint import resume, save_checkpoint
from drrepro.training.diagnose import first_not_finite
from drrepro.training.schedule import build_optimizer, learning_rate, set_learning_rate

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # of the forward pass


def train(
    model: RetinaNet, samples: list[Sample], config: Config, directory: Path, device: torch.device, report: Report
) -> dict[str, float]:
    """Train ``model`` in place, from the checkpoint in ``directory`` if there is one; return wall and CPU seconds.

    Each rank computes its share of every step; rank 0 writes metrics.jsonl and checkpoint.pt. Raises RunError at the
    first loss that is not finite, and after a signal, once there is a checkpoint, KeyboardInterrupt.
    """
    samples = [s for s in samples if not config.input.skip_empty or (~s.ignore).any()]
    if not samples:
        raise UsageError(f"data={config.data.name}: no training image has an object; set input.skip_empty=false")
    schedule, total = config.schedule, config.schedule.steps
    optimizer = build_optimizer(model, schedule)
    scaler = torch.amp.GradScaler(device.type, enabled=schedule.precision == "fp16")
    start, before = resume(directory, model, optimizer, scaler)
    start = min(start, total)
    if len(set(all_parts(start))) > 1:
        raise RunError(f"{directory}: ranks have read different checkpoints; all nodes need the same runs folder")
    clock, log = _Clock(before), _Log(directory / "metrics.jsonl", start)
    classification, detector = build_loss(config.loss), _prepare(model, config, device)
    steps = range(start, total)
    pin, workers = device.type == "cuda", config.runtime.workers
    batches = training_batches(samples, config.input, schedule.images_per_step, config.seed, steps, workers, pin)
    model.train()
    with deferred() as signalled:
        for step, items in zip(steps, batches, strict=True):
            rate = learning_rate(step, schedule)
            set_learning_rate(optimizer, rate)
            size = len(items) // schedule.accumulate
            parts = [
                collate(items[i : i + size], config.input, device, config.model.inclusive)
                for i in range(0, len(items), size)
            ]
            numbers = {**add_gradients(detector, model, classification, scaler, parts, config), "lr": rate}
            if not math.isfinite(numbers["loss"]):
                raise RunError(f"{directory}: step {step}: {_not_finite('loss', numbers, model, parts, config)}")
            if not _clip(model, optimizer, scaler, schedule.clip_norm):
                raise RunError(f"{directory}: step {step}: {_not_finite('gradient', numbers, model, parts, config)}")
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            done = step + 1
            numbers["images_per_second"] = (done - start) * schedule.images_per_step / clock.elapsed()
            if done % config.runtime.log_every == 0 or done == total:
                log.add(done, numbers)
            report("train", done, total, numbers)
            stop = on_any_rank(signalled(), device)
            if rank() == 0 and (done % config.runtime.checkpoint_every == 0 or done == total or stop):
                save_checkpoint(directory, model, optimizer, scaler, done, clock.seconds())
            if stop:
                raise KeyboardInterrupt
    first_buffers(model)
    return clock.seconds()


def _prepare(model: RetinaNet, config: Config, device: torch.device) -> nn.Module:
    """Return what the loop calls: the model, compiled if asked for, its gradients averaged over the ranks."""
    if config.runtime.compile:
        model.compile()
    if world() == 1:
        return model
    return DistributedDataParallel(model, [device] if device.type == "cuda" else None)


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
    the distribution of DR loss with scope batch.
    """
    dtype = DTYPES[config.schedule.precision]
    targets = [_targets(model, batch, config) for batch in parts]
    positives = sum_over_ranks(torch.stack([(labels > 0).sum() for _, labels, _ in targets]).sum())
    terms = torch.zeros(2, device=positives.device)
    for i, (batch, (anchors, labels, boxes)) in enumerate(zip(parts, targets, strict=True)):
        last = i == len(parts) - 1
        with nullcontext() if last or world() == 1 else detector.no_sync():  # type: ignore[operator]
            with torch.autocast(batch.images.device.type, dtype, enabled=dtype is not None):
                logits, deltas = detector(batch.images)
            share = torch.stack(
                [
                    classification.share(logits, labels, positives, len(parts) * world()),
                    box_loss(deltas, anchors, labels, boxes, config.loss, config.model.box_weights, positives),
                ]
            )
            loss = scaler.scale(share.sum() * world())  # times world(), since the ranks' gradients are averaged
            loss.backward()  # type: ignore[no-untyped-call]
        terms += share.detach()
    classified, box = sum_over_ranks(terms).tolist()
    return {"loss": classified + box, "classification": classified, "box": box}


def _clip(
    model: RetinaNet, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, clip_norm: float | None
) -> bool:
    """Limit the norm of the gradients; return False, leaving them as they are, where it is not finite.

    That is looked at on a CPU alone: a GPU would have to be waited for, and float16's scaler skips such steps itself.
    """
    if clip_norm is None:
        return True
    scaler.unscale_(optimizer)
    parameters = list(model.parameters())
    look = parameters[0].device.type == "cpu" and not scaler.is_enabled()
    try:
        torch.nn.utils.clip_grad_norm_(parameters, clip_norm, error_if_nonfinite=look)
    except RuntimeError:
        return False
    return True


def _not_finite(what: str, numbers: dict[str, float], model: RetinaNet, parts: list[Batch], config: Config) -> str:
    """Say what is not finite, where that begins, and what helps."""
    shown = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
    found = [first_not_finite(model, part.images, DTYPES[config.schedule.precision]) for part in parts]
    first = next((place for place in found if place), "the loss itself")
    rounded = "" if config.schedule.precision == "fp32" else " or set schedule.precision=fp32"
    return f"the {what} is not finite ({shown}), first {first}; lower schedule.lr{rounded}"


def _targets(model: RetinaNet, batch: Batch, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Return the anchors (A, 4) of a batch, their labels (B, A) and the boxes that they matched (B, A, 4)."""
    anchors = torch.cat(model.anchors_of(batch.images))
    return anchors, *match(anchors, batch.boxes, batch.labels, config.matcher)


class _Clock:
    """Wall and CPU seconds since now, on top of those spent before an interruption."""

    def __init__(self, before: dict[str, float]) -> None:
        self.before = before
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def elapsed(self) -> float:
        return time.perf_counter() - self.wall

    def seconds(self) -> dict[str, float]:
        cpu = time.process_time() - self.cpu
        return {"wall": self.before["wall"] + self.elapsed(), "cpu": self.before["cpu"] + cpu}


class _Log:
    """metrics.jsonl: one line a logged step; lines past the checkpoint that a run goes on from are dropped."""

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        if rank() > 0:
            return
        lines = path.read_text().splitlines() if path.is_file() else []
        write_text(path, "".join(f"{line}\n" for line in lines if _step_of(line) <= start))

    def add(self, step: int, numbers: dict[str, float]) -> None:
        if rank() > 0:
            return
        rounded = {name: float(f"{value:.6g}") for name, value in numbers.items()}
        try:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **rounded}) + "\n")
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written ({error.strerror}); free some space") from None


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the last line of a killed run may be half written
        return math.inf
