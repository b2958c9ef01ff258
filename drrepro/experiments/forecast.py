"""What runs will cost: short timed probes of their detectors on this machine, and arithmetic."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from drrepro.config import run_id
from drrepro.data.check import PUBLISHED
from drrepro.data.dataset import Dataset
from drrepro.data.download import require_fetched
from drrepro.data.loader import KEEP_BYTES
from drrepro.data.published import FETCHED
from drrepro.data.splits import open_splits
from drrepro.distributed import world
from drrepro.errors import UsageError
from drrepro.experiments.device import pick_device
from drrepro.experiments.launchers import cpus_of
from drrepro.experiments.probe import Probe, probe
from drrepro.experiments.run import needed_splits
from drrepro.runs.states import state_of
from drrepro.schema import Config
from drrepro.training.checkpoint import load_checkpoint

DETECTION_BYTES = 60  # of one detection on disk, compressed, with its matches
SCATTERED = 1.3  # median over fastest repeat from which something else must be using the machine
ASPECT = 4 / 3  # of the images kept in memory


@dataclass(frozen=True)
class Cost:
    """What one run needs; images_tested is None where it is not known yet, and then no part of seconds."""

    run_id: str
    state: str  # new | running | interrupted | failed | done
    steps: int  # still to do
    images_trained: int
    images_tested: int | None
    seconds: float  # of all ranks working together
    disk_mb: float


@dataclass(frozen=True)
class Forecast:
    """The cost of each run, the threads that one gets, and how far the repeats of the probes lay apart."""

    costs: list[Cost]
    threads: int
    scatter: float


def forecast(
    configs: list[Config], runs: Path, data_folder: Path, jobs: int, progress: Callable[[int, int], None]
) -> Forecast:
    """Return what each of ``configs`` needs on this machine, ``jobs`` at a time; nothing is written to ``runs``.

    A few images are timed at the largest and the smallest scale of each kind of detector, with the threads that a run
    gets; scales between follow by their pixels. The start of a run and COCO's metrics are left out.
    """
    if world() > 1:
        raise UsageError("--dry-run: asks one process; leave torchrun away and say launcher.ranks=N")
    kinds: dict[str, list[Config]] = {}
    for config in configs:
        kinds.setdefault(_kind(config), []).append(config)
    costs: dict[str, Cost] = {}
    threads, scatter = cpus_of(configs[0].launcher, min(jobs, len(configs))), 1.0
    with _threads(threads):
        for own in kinds.values():
            splits = _open(own, data_folder)
            ends = sorted(own, key=lambda config: config.input.scale)
            scales = dict.fromkeys((ends[0].input.scale, ends[-1].input.scale))
            probes = [_probe(next(c for c in ends if c.input.scale == scale), splits) for scale in scales]
            scatter = max(scatter, *(one.scatter for one in probes))
            for config in own:
                between = _between(probes[0], probes[-1], config.input.scale)
                costs[run_id(config)] = _cost(config, between, splits, runs)
                progress(len(costs), len(configs))
    return Forecast([costs[run_id(config)] for config in configs], threads, scatter)


def _kind(config: Config) -> str:
    """Return what the probes of two configurations share but for their scale."""
    evaluation = replace(config.evaluation, score_threshold=0.0, nms_iou=0.5)
    parts = (config.data, replace(config.model, prior=0.5), evaluation, config.runtime.device)
    schedule = (config.schedule.precision, config.schedule.images_per_step, config.schedule.accumulate)
    return repr((parts, schedule, replace(config.input, scale=16), config.launcher.ranks))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _open(configs: list[Config], data_folder: Path) -> dict[str, Dataset]:
    """Return the splits that the configurations read; none of a published set that is not here yet."""
    data = configs[0].data
    if data.root is None and data.name in FETCHED:
        try:
            require_fetched(data.name, data_folder)
        except UsageError:
            return {}
    return open_splits(data, list(dict.fromkeys(s for c in configs for s in needed_splits(c))), data_folder)


def _probe(config: Config, splits: dict[str, Dataset]) -> Probe:
    trained, tested = splits.get("train"), splits.get(config.evaluation.split)
    return probe(config, trained, tested, pick_device(config.runtime.device))


def _between(smallest: Probe, largest: Probe, scale: int) -> Probe:
    """Return the probe at a scale between two: time grows with the pixels, from what an image costs at any size."""
    if smallest.scale == largest.scale:
        return largest
    pixels = largest.scale**2 - smallest.scale**2
    share = (scale**2 - smallest.scale**2) / pixels
    times = {
        name: (1 - share) * getattr(smallest, name) + share * getattr(largest, name)
        for name in ("read", "train", "update", "evaluate")
    }
    return replace(largest, scale=scale, **times)


def _cost(config: Config, probed: Probe, splits: dict[str, Dataset], runs: Path) -> Cost:
    state, steps = _left(config, runs)
    images = steps * config.schedule.images_per_step
    tested = splits.get(config.evaluation.split)
    count = len(tested.samples) if tested else PUBLISHED.get(config.data.name, {}).get(config.evaluation.split)
    seconds = disk = 0.0
    if state != "done":
        seconds = _training_seconds(config, probed, steps, splits.get("train")) + (count or 0) * probed.evaluate
        copies = 2 if config.schedule.optimizer == "sgd" else 3  # weights and what the optimizer keeps of each
        checkpoints = 2 * 4 * probed.parameters * copies if config.schedule.steps else 0  # the last two
        disk = checkpoints + (count or 0) * config.evaluation.detections_per_image * DETECTION_BYTES
    return Cost(run_id(config), state, steps, images, count, seconds / config.launcher.ranks, disk / 1e6)


def _training_seconds(config: Config, probed: Probe, steps: int, trained: Dataset | None) -> float:
    """Return the seconds of all ranks: reading, unless other processes do it meanwhile, forward, backward, optimizer.

    Without workers the images of the first epoch are kept, as many as there is room for.
    """
    images = steps * config.schedule.images_per_step
    work = images * probed.train + steps * config.launcher.ranks * probed.update
    if config.runtime.workers:
        return max(work, images * probed.read / config.runtime.workers)
    known = len(trained.samples) if trained else PUBLISHED.get(config.data.name, {}).get("train", images)
    kept = min(known, KEEP_BYTES / (3 * ASPECT * config.input.scale**2))
    return work + probed.read * (min(images, known) + max(0, images - known) * (1 - kept / known))


def _left(config: Config, runs: Path) -> tuple[str, int]:
    """Return the state of a run and the steps it has still to do."""
    state = state_of(runs / run_id(config)).state
    checkpoint = load_checkpoint(runs / run_id(config)) if state not in ("done", "new") else None
    done = config.schedule.steps if state == "done" else checkpoint["step"] if checkpoint else 0
    return state, max(0, config.schedule.steps - done)
