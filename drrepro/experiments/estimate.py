"""What runs will cost: a short timed probe of the detector on this machine, and arithmetic."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from drrepro.config import run_id
from drrepro.data.check import PUBLISHED
from drrepro.data.loader import Batch
from drrepro.data.splits import open_split
from drrepro.distributed import world
from drrepro.errors import UsageError
from drrepro.experiments.run import pick_device
from drrepro.experiments.states import state_of
from drrepro.models.retinanet import RetinaNet
from drrepro.schema import Config
from drrepro.training.checkpoint import load_checkpoint
from drrepro.training.loop import add_gradients
from drrepro.training.losses import build_loss

REPEATS, ENOUGH_SECONDS = 3, 10.0  # of a probe, whichever is first
PROBE_PIXELS = 10**6  # of the images timed together: a batch where they are small, one where they are large
DETECTION_BYTES = 60  # of one detection on disk, compressed, with its matches
ASPECT = 4 / 3  # of the probe's images


@dataclass(frozen=True)
class Estimate:
    """What one run needs; images_tested is None where it is not known yet, and then no part of seconds."""

    run_id: str
    state: str  # new | running | interrupted | failed | done
    steps: int  # still to do
    images_trained: int
    images_tested: int | None
    seconds: float  # of all ranks working together
    disk_mb: float


def estimate(
    configs: list[Config], runs: Path, data_folder: Path, progress: Callable[[int, int], None]
) -> list[Estimate]:
    """Return what each of ``configs`` needs on this machine; nothing is written.

    A few images, or one, are timed at the largest scale of each kind of detector; other scales follow by their pixels.
    Loading of images is taken to be hidden behind the training; optimizer, NMS and metrics are left out.
    """
    if world() > 1:
        raise UsageError("--dry-run: asks one process; leave torchrun away and say launcher.ranks=N")
    rows: list[Estimate] = []
    measured: dict[str, tuple[int, float, float, int]] = {}
    for config in sorted(configs, key=lambda c: -c.input.scale):
        classes, count = _tested(config, data_folder)
        kind = repr((replace(config.model, prior=0.5), config.schedule.precision, config.runtime.device))
        if kind not in measured:
            measured[kind] = _probe(config, classes)
        scale, training, evaluating, parameters = measured[kind]
        pixels = (config.input.scale / scale) ** 2
        state, steps = _left(config, runs)
        images = steps * config.schedule.images_per_step
        work = 0.0 if state == "done" else pixels * (images * training + (count or 0) * evaluating)
        copies = 2 if config.schedule.optimizer == "sgd" else 3  # weights and what the optimizer keeps of each
        checkpoint = 2 * 4 * parameters * copies if config.schedule.steps else 0  # the last two
        kept = (count or 0) * config.evaluation.detections_per_image * DETECTION_BYTES
        disk = 0.0 if state == "done" else (checkpoint + kept) / 1e6
        rows.append(Estimate(run_id(config), state, steps, images, count, work / config.launcher.ranks, disk))
        progress(len(rows), len(configs))
    order = {run_id(config): i for i, config in enumerate(configs)}
    return sorted(rows, key=lambda row: order[row.run_id])


def _left(config: Config, runs: Path) -> tuple[str, int]:
    """Return the state of a run and the steps it has still to do."""
    state = state_of(runs / run_id(config)).state
    checkpoint = load_checkpoint(runs / run_id(config)) if state not in ("done", "new") else None
    done = config.schedule.steps if state == "done" else checkpoint["step"] if checkpoint else 0
    return state, max(0, config.schedule.steps - done)


def _tested(config: Config, data_folder: Path) -> tuple[int, int | None]:
    """Return classes and test images: of data that are not here yet what is published, if anything."""
    try:
        dataset = open_split(config.data, config.evaluation.split, data_folder)
    except UsageError:
        return len(config.data.classes or range(80)), PUBLISHED.get(config.data.name, {}).get("test")
    return len(dataset.classes), len(dataset.samples)


def _probe(config: Config, classes: int) -> tuple[int, float, float, int]:
    """Return the scale, seconds per image of training and of evaluation, and the parameters of a detector."""
    device = pick_device(config.runtime.device)
    model = RetinaNet(config.model, classes).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    step = config.input.size_divisor
    height, width = (-(-round(side) // step) * step for side in (config.input.scale, ASPECT * config.input.scale))
    part = max(1, config.schedule.images_per_step // (config.schedule.accumulate * config.launcher.ranks))
    count = max(1, min(part, PROBE_PIXELS // (height * width)))
    images = torch.zeros(count, 3, height, width, device=device).contiguous(memory_format=torch.channels_last)
    box = torch.tensor([[[0.0, 0.0, width / 2, height / 2]]], device=device).expand(count, 1, 4)
    batch = Batch([], images, [], box, torch.ones(count, 1, dtype=torch.int64, device=device))
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    train = partial(add_gradients, model, model, build_loss(config.loss), scaler, [batch], config)
    training = _seconds(train, device) if config.schedule.steps else 0.0
    model.eval()
    with torch.inference_mode():
        evaluating = _seconds(lambda: model(images), device)
    return config.input.scale, training / count, evaluating / count, sum(p.numel() for p in model.parameters())


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Return the median seconds of a call after a first one, which warms up."""
    times: list[float] = []
    while len(times) <= REPEATS and (len(times) < 2 or sum(times) < ENOUGH_SECONDS):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
