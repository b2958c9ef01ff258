"""The training loop."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from drrepro.data.ahead import one_ahead
from drrepro.data.dataset import Sample
from drrepro.data.loader import collate, training_batches
from drrepro.distributed import all_parts, first_buffers, on_any_rank, rank, world
from drrepro.errors import RunError, UsageError
from drrepro.interrupt import deferred
from drrepro.losses.named import build_loss
from drrepro.models.retinanet import RetinaNet
from drrepro.progress import Report
from drrepro.schema import Config
from drrepro.training.checkpoint import resume, save_checkpoint
from drrepro.training.schedule import build_optimizer, learning_rate, set_learning_rate
from drrepro.training.sinks import Sink
from drrepro.training.step import Learner, NotFiniteError, Part, with_targets


def train(
    model: RetinaNet,
    samples: list[Sample],
    config: Config,
    directory: Path,
    device: torch.device,
    report: Report,
    sinks: list[Sink],
) -> dict[str, float]:
    """Train ``model`` in place, from the checkpoint in ``directory`` if there is one; return wall and CPU seconds.

    Each rank computes its share of every step; rank 0 writes the checkpoint, and has the sinks. What a step gives is
    read at once on a CPU, on a GPU where it is logged or kept. Raises RunError for a loss that was not finite since
    then, and after a signal, once there is a checkpoint, KeyboardInterrupt.
    """
    samples = _with_objects(samples, config)
    learner = build_learner(model, config, device)
    start, clock = _start(directory, learner)
    for sink in sinks:
        sink.on_resume(start)
    model.train()
    numbers: dict[str, float] = {}
    with deferred() as signalled:
        for step, parts in enumerate(one_ahead(_parts(learner, samples, device, start), device, _tensors), start):
            rate = _step(learner, step, parts)
            done, total = step + 1, config.schedule.steps
            logged, kept = (
                _is_due(done, n, total) for n in (config.runtime.log_every, config.runtime.checkpoint_every)
            )
            looked = logged or kept or device.type == "cpu"  # a GPU waits for it, and for the other ranks' answers
            if looked:
                numbers = {**_read(learner, samples, directory, device), "lr": rate}
                numbers["images_per_second"] = (done - start) * config.schedule.images_per_step / clock.elapsed()
            for sink in sinks if logged else []:
                sink.on_step(done, numbers)
            report("train", done, total, numbers)
            stop = (looked or world() == 1) and on_any_rank(signalled(), device)
            if stop:
                _read(learner, samples, directory, device)  # no checkpoint of a failed step
            if rank() == 0 and (stop or kept):
                _keep(learner, directory, done, clock, sinks)
            if stop:
                raise KeyboardInterrupt
    first_buffers(model)
    return clock.seconds()


def _with_objects(samples: list[Sample], config: Config) -> list[Sample]:
    """Return the samples that are trained on. Raises UsageError where there are none."""
    samples = [sample for sample in samples if not config.input.skip_empty or (~sample.ignore).any()]
    if not samples:
        raise UsageError(f"data={config.data.name}: no training image has an object; set input.skip_empty=false")
    return samples


def build_learner(model: RetinaNet, config: Config, device: torch.device) -> Learner:
    """Return what takes the steps: the model as the ranks share it, its loss and its optimizer."""
    scaler = torch.amp.GradScaler(device.type, enabled=config.schedule.precision == "fp16")
    optimizer = build_optimizer(model, config.schedule)
    return Learner(model, _prepare(model, config, device), build_loss(config.loss), optimizer, scaler, config)


def _prepare(model: RetinaNet, config: Config, device: torch.device) -> nn.Module:
    """Return what a step calls: the model, compiled if asked for, its gradients averaged over the ranks."""
    if config.runtime.compile:
        sizes = len(config.input.pad_to) ** 2  # of which each is compiled once, for training and for evaluation
        limits: Any = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, 2 * sizes + 8)
        model.compile(dynamic=False if sizes else None)
    if world() == 1:
        return model
    return DistributedDataParallel(model, [device] if device.type == "cuda" else None)


def _start(directory: Path, learner: Learner) -> tuple[int, "_Clock"]:
    """Return the steps done, from the checkpoint if there is one, and the clock that goes on from there."""
    done, before = resume(directory, learner.model, learner.loss, learner.optimizer, learner.scaler)
    if len(set(all_parts(done))) > 1:
        raise RunError(f"{directory}: ranks have read different checkpoints; all nodes need the same runs folder")
    return min(done, learner.config.schedule.steps), _Clock(before)


def _parts(learner: Learner, samples: list[Sample], device: torch.device, start: int) -> Iterator[list[Part]]:
    """Yield the parts of each step from ``start`` on, as many as gradients are accumulated over."""
    config = learner.config
    schedule, workers = config.schedule, config.runtime.workers
    steps, pin = range(start, schedule.steps), device.type == "cuda"
    for items in training_batches(samples, config.input, schedule.images_per_step, config.seed, steps, workers, pin):
        size = len(items) // schedule.accumulate
        pieces = [items[i : i + size] for i in range(0, len(items), size)]
        batches = [collate(piece, config.input, device, config.model.inclusive) for piece in pieces]
        yield [with_targets(batch, learner.model, config) for batch in batches]


def _tensors(parts: list[Part]) -> list[Tensor]:
    return [tensor for batch, targets in parts for tensor in (batch.images, batch.boxes, batch.labels, *targets)]


def _step(learner: Learner, step: int, parts: list[Part]) -> float:
    """Take a step at its learning rate, and return that."""
    rate = learning_rate(step, learner.config.schedule)
    set_learning_rate(learner.optimizer, rate)
    learner.step(step, parts)
    return rate


def _read(learner: Learner, samples: list[Sample], directory: Path, device: torch.device) -> dict[str, float]:
    """Return the last step's loss and its terms. Raises RunError at a loss or gradient that was not finite."""
    try:
        return learner.read()
    except NotFiniteError as error:
        parts = next(_parts(learner, samples, device, error.step))
        raise RunError(f"{directory}: step {error.step}: {learner.explain(error, parts)}") from None


def _keep(learner: Learner, directory: Path, done: int, clock: "_Clock", sinks: list[Sink]) -> None:
    """Write a checkpoint, and say so."""
    save_checkpoint(directory, learner.model, learner.loss, learner.optimizer, learner.scaler, done, clock.seconds())
    for sink in sinks:
        sink.on_checkpoint(done)


def _is_due(done: int, every: int, total: int) -> bool:
    return done % every == 0 or done == total


class _Clock:
    """Wall and CPU seconds since now, on top of those spent before an interruption."""

    def __init__(self, before: dict[str, float]) -> None:
        self.before = before
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def elapsed(self) -> float:
        """Return the wall seconds since it was made."""
        return time.perf_counter() - self.wall

    def seconds(self) -> dict[str, float]:
        """Return wall and CPU seconds, those before included."""
        cpu = time.process_time() - self.cpu
        return {"wall": self.before["wall"] + self.elapsed(), "cpu": self.before["cpu"] + cpu}
