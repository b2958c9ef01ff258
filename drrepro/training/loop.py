"""The training loop."""

import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor

from drrepro.data.dataset import Sample
from drrepro.data.loader import Batch, collate, training_batches
from drrepro.errors import RunError, UsageError
from drrepro.files import write_text
from drrepro.models.anchors import match
from drrepro.models.retinanet import RetinaNet
from drrepro.progress import Report
from drrepro.schema import Config
from drrepro.training.checkpoint import load_checkpoint, save_checkpoint
from drrepro.training.losses import box_loss, build_loss
from drrepro.training.schedule import build_optimizer, learning_rate, set_learning_rate


def train(
    model: RetinaNet, samples: list[Sample], config: Config, directory: Path, device: torch.device, report: Report
) -> dict[str, float]:
    """Train ``model`` in place, from the checkpoint in ``directory`` if there is one; return wall and CPU seconds.

    Writes metrics.jsonl and checkpoint.pt. Raises RunError at the first loss that is not finite.
    """
    samples = [s for s in samples if not config.input.skip_empty or (~s.ignore).any()]
    if not samples:
        raise UsageError(f"data={config.data.name}: no training image has an object; set input.skip_empty=false")
    optimizer = build_optimizer(model, config.schedule)
    start, before = _resume(model, optimizer, directory, config.schedule.steps)
    clock = _Clock(before)
    log = _Log(directory / "metrics.jsonl", start)
    batch_size, total = config.schedule.images_per_step, config.schedule.steps
    classification = build_loss(config.loss)
    steps = range(start, total)
    pin = device.type == "cuda"
    batches = training_batches(samples, config.input, batch_size, config.seed, steps, config.runtime.workers, pin)
    model.train()
    for step, items in zip(steps, batches, strict=True):
        rate = learning_rate(step, config.schedule)
        set_learning_rate(optimizer, rate)
        parts = _losses(model, classification, collate(items, config.input, device), config)
        loss = torch.stack(list(parts.values())).sum()
        numbers = {"loss": loss.item(), **{name: part.item() for name, part in parts.items()}, "lr": rate}
        if not math.isfinite(numbers["loss"]):
            shown = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
            raise RunError(f"{directory}: step {step}: the loss is not finite ({shown}); lower schedule.lr")
        loss.backward()  # type: ignore[no-untyped-call]
        if config.schedule.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.schedule.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        done = step + 1
        numbers["images_per_second"] = (done - start) * batch_size / clock.elapsed()
        if done % config.runtime.log_every == 0 or done == total:
            log.add(done, numbers)
        report("train", done, total, numbers)
        if done % config.runtime.checkpoint_every == 0 or done == total:
            save_checkpoint(directory, model, optimizer, done, clock.seconds())
    return clock.seconds()


def _losses(model: RetinaNet, classification: torch.nn.Module, batch: Batch, config: Config) -> dict[str, Tensor]:
    bf16 = config.schedule.precision == "bf16"
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=bf16):
        logits, deltas, levels = model(batch.images)
    anchors = torch.cat(levels)
    labels, boxes = match(anchors, batch.boxes, batch.labels, config.matcher)
    return {
        "classification": classification(logits, labels),
        "box": box_loss(deltas, anchors, labels, boxes, config.loss, config.model.box_weights),
    }


def _resume(
    model: RetinaNet, optimizer: torch.optim.Optimizer, directory: Path, total: int
) -> tuple[int, dict[str, float]]:
    """Load the checkpoint, if any; return the steps done and the seconds spent on them."""
    state = load_checkpoint(directory)
    if state is None:
        return 0, {"wall": 0.0, "cpu": 0.0}
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
    except (RuntimeError, ValueError, KeyError, TypeError):
        raise RunError(f"{directory}: checkpoint of another version of drrepro; remove it to train again") from None
    return min(int(state["step"]), total), state["seconds"]


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
        lines = path.read_text().splitlines() if path.is_file() else []
        write_text(path, "".join(f"{line}\n" for line in lines if _step_of(line) <= start))

    def add(self, step: int, numbers: dict[str, float]) -> None:
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
