"""How long a few images take this machine to read, train on and detect on, done as a run does them."""

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from drrepro.data.dataset import Dataset, Sample
from drrepro.data.loader import Item, collate
from drrepro.data.transforms import load_image
from drrepro.detection.detect import detect
from drrepro.losses.named import build_loss
from drrepro.models.retinanet import RetinaNet, build_detector
from drrepro.schema import Config
from drrepro.training.schedule import build_optimizer
from drrepro.training.step import add_gradients, with_targets

REPEATS, ENOUGH_SECONDS = 5, 10.0  # of what is timed, whichever is first, but two at least
PIXELS = 10**6  # of the images timed together: a batch where they are small, one where they are large
STAND_IN = (480, 640)  # height and width of images that are not here yet: most of COCO's


@dataclass(frozen=True)
class Probe:
    """Seconds of one detector at one scale: the fastest of the repeats, since what disturbs them only adds."""

    scale: int
    read: float  # an image
    train: float  # an image, once read: forward and backward
    update: float  # a step: the optimizer
    evaluate: float  # an image, reading included
    parameters: int
    scatter: float  # the median over the fastest repeat, of the training


def probe(config: Config, trained: Dataset | None, tested: Dataset | None, device: torch.device) -> Probe:
    """Time the detector of ``config`` on images of both splits; on noise where they are not here yet."""
    known = tested or trained
    classes = len(known.classes if known else config.data.classes or range(80))
    model = build_detector(config, classes, device)
    part = config.schedule.images_per_step // (config.schedule.accumulate * config.launcher.ranks)
    count = max(1, min(part, int(PIXELS / (config.input.scale**2 * 4 / 3))))
    with tempfile.TemporaryDirectory() if not (trained and tested) else nullcontext("") as folder:
        stand_in = _stand_in(count, classes, Path(folder)) if folder else Dataset([], [], [])
        read, train, update, scatter = 0.0, 0.0, 0.0, 1.0
        if config.schedule.steps:
            chosen = _some((trained or stand_in).samples, count)
            read, train, update, scatter = _time_training(model, chosen, config, device)
        subset = replace(tested or stand_in, samples=_some((tested or stand_in).samples, count))
        ious = sorted({config.evaluation.nms_iou, *config.evaluation.nms_ious})
        alone = replace(config, runtime=replace(config.runtime, workers=0))
        found = partial(detect, model, subset, alone, ious, device, lambda done, total: None)
        evaluate, _ = _seconds(found, device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Probe(config.input.scale, read, train, update, evaluate / len(subset.samples), parameters, scatter)


def _time_training(
    model: RetinaNet, samples: list[Sample], config: Config, device: torch.device
) -> tuple[float, float, float, float]:
    """Return seconds an image of reading and of training, seconds of the optimizer, and the scatter of the training."""
    read, _ = _seconds(lambda: [load_image(sample, config.input) for sample in samples], torch.device("cpu"))
    items = [Item(sample, load_image(sample, config.input), False) for sample in samples]
    loss, scaler = build_loss(config.loss), torch.amp.GradScaler(device.type, enabled=False)
    optimizer = build_optimizer(model, config.schedule)
    model.train()

    def step() -> None:
        batch = collate(items, config.input, device, config.model.inclusive)
        add_gradients(model, loss, scaler, [with_targets(batch, model, config)], config)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.schedule.clip_norm or 1.0)
        optimizer.step()

    train, scatter = _seconds(step, device)
    updated, _ = _seconds(update, device)
    return read / len(items), train / len(items), updated, scatter


def _some(samples: list[Sample], count: int) -> list[Sample]:
    """Return ``count`` samples from all over the split."""
    return samples[:: max(1, len(samples) // count)][:count]


def _stand_in(count: int, classes: int, folder: Path) -> Dataset:
    """Write images of noise with a box each."""
    height, width = STAND_IN
    rng = np.random.default_rng(0)
    samples = []
    for i in range(count):
        path = folder / f"{i}.jpg"
        noise = Image.fromarray(rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8))
        noise.resize((width, height)).save(path)
        box, one = np.array([[0.0, 0.0, width / 2, height / 2]]), np.ones(1, np.int64)
        samples.append(Sample(i, path, width, height, box, one, box[:, 2] * box[:, 3], np.zeros(1, np.bool_)))
    return Dataset([str(i) for i in range(classes)], list(range(1, classes + 1)), samples)


def _seconds(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return the seconds of the fastest call after a first one, which warms up, and the median over it."""
    times: list[float] = []
    while len(times) <= REPEATS and (len(times) < 3 or sum(times) < ENOUGH_SECONDS):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:]), statistics.median(times[1:]) / min(times[1:])
