"""One run: train, evaluate, write the record. A finished run is never run twice."""

import math
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from omegaconf import OmegaConf

from drrepro.config import run_id, to_dict
from drrepro.data.dataset import Dataset
from drrepro.data.splits import open_splits
from drrepro.detection.detect import detect
from drrepro.distributed import all_parts, process_group, rank, world
from drrepro.errors import RunError, UsageError
from drrepro.experiments.device import pick_device
from drrepro.experiments.measure import measure
from drrepro.experiments.provenance import cost_of, provenance, summary
from drrepro.files import write_text
from drrepro.interrupt import interruptible
from drrepro.migrations import SCHEMA
from drrepro.models.checkpoints import load_weights
from drrepro.models.retinanet import RetinaNet, build_detector
from drrepro.progress import Report, silent
from drrepro.runs.folder import RunFolder, weights_path
from drrepro.runs.lock import hold
from drrepro.runs.records import DataSummary, Measured, Provenance, Record, RunCost, read_record, write_record
from drrepro.runs.states import SCORING, read_status, write_error, write_status
from drrepro.schema import Config
from drrepro.training.loop import train
from drrepro.training.sinks import Sink, build_sinks, tracker_class


def run(config: Config, runs: Path, data_folder: Path, report: Report) -> Record:
    """Carry out ``config`` in its folder under ``runs`` and return its record; go on from a checkpoint if there is one.

    With ``weights`` the detector starts from those; with no ``schedule.steps`` it is evaluated only.
    Under torchrun the ranks share the work; the first writes. Raises UsageError before any work when the input is
    wrong, RunError when something fails on the way; status.json then says why.
    """
    directory = runs / run_id(config)
    finished = read_record(directory)
    if finished is not None:
        return finished
    device = pick_device(config.runtime.device)
    _check_parts(config)
    _check_weights(config, runs)
    tracker_class(config)
    splits = open_splits(config.data, needed_splits(config), data_folder, report)
    trained, tested = splits.get("train"), splits[config.evaluation.split]
    _check_classes(config, runs, trained, tested)
    lock = hold(directory) if rank() == 0 else nullcontext(False)
    with interruptible(), lock as waited, process_group(device):
        before = (read_record(directory), read_status(directory) if waited else {})
        finished, said = all_parts(before)[0]  # perhaps by another process, while this one waited for it
        if finished is not None:
            return finished
        if said.get("state") == "failed":
            raise RunError(said["why"])
        try:
            return _carry_out(config, directory, runs, trained, tested, device, report)
        except BaseException as error:
            write_error(directory, error)  # before the lock is another's
            raise


def needed_splits(config: Config) -> list[str]:
    """Return the splits that a run reads."""
    return [*(["train"] if config.schedule.steps else []), config.evaluation.split]


def _check_parts(config: Config) -> None:
    """Raise UsageError unless the images of a step can be shared equally."""
    images, accumulate = config.schedule.images_per_step, config.schedule.accumulate
    if images % (world() * accumulate):
        raise UsageError(
            f"schedule.images_per_step={images} schedule.accumulate={accumulate}: {world()} ranks with {accumulate} "
            "passes each cannot share them equally"
        )


def _check_weights(config: Config, runs: Path) -> None:
    """Raise UsageError for weights that are not there or not for this model, and for frozen random ones."""
    if config.weights == "imagenet":
        if config.model.backbone == "small":
            raise UsageError("weights=imagenet: there are none of model.backbone=small; set model=retinanet_r50")
        if config.model.stride_in_1x1 or config.input.bgr:
            raise UsageError(
                "weights=imagenet: torchvision's have the stride in the 3x3 and take RGB; set model=retinanet_r50"
            )
    elif config.weights != "none":
        path = weights_path(config.weights, runs)
        if not path.is_file() and config.weights.startswith("run:"):
            raise UsageError(f"weights={config.weights}: no checkpoint in {path.parent}")
        if not path.is_file():
            raise UsageError(f"weights={path}: no such file; takes none, imagenet, run:ID or the path of a file")
    elif config.model.backbone != "small" and (config.model.frozen_stages or config.model.norm == "frozen"):
        raise UsageError(
            f"model.frozen_stages={config.model.frozen_stages} model.norm={config.model.norm}: random weights would be "
            "frozen; give weights, or set model.frozen_stages=0 model.norm=batch model.norm_eps=1e-5"
        )


def _check_classes(config: Config, runs: Path, trained: Dataset | None, tested: Dataset) -> None:
    """Raise UsageError unless the classes tested are those trained, in the same order."""
    if trained is not None:
        known, where = trained.classes, "the train split"
    elif config.weights.startswith("run:"):
        source = read_record(runs / config.weights.removeprefix("run:"))
        known, where = (source["data"]["classes"], config.weights) if source else (tested.classes, "")
    else:
        return
    if known != tested.classes:
        classes, other = ", ".join(tested.classes), ", ".join(known)
        raise UsageError(
            f"data={config.data.name}: the {config.evaluation.split} split has the classes {classes}; "
            f"{where} has {other}; for a voc folder set data.classes"
        )


def _with_status(directory: Path, report: Report) -> Report:
    """Also keep the progress in status.json, about once a second, where a sweep looks for it."""
    last = -math.inf
    started: dict[str, tuple[float, int]] = {}

    def both(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        nonlocal last
        report(stage, done, total, numbers)
        now = time.monotonic()
        new = stage not in started
        since, first = started.setdefault(stage, (now, done))
        if new or now - last >= 1:
            last = now
            left = (now - since) / (done - first) * (total - done) if done > first else None
            progress = {"stage": stage, "done": done, "total": total, "seconds_left": left, "numbers": numbers}
            write_status(directory, {"state": "running", **progress})

    return both


def _carry_out(
    config: Config,
    directory: Path,
    runs: Path,
    trained: Dataset | None,
    tested: Dataset,
    device: torch.device,
    report: Report,
) -> Record:
    if rank() == 0:
        write_text(RunFolder(directory).config, OmegaConf.to_yaml(to_dict(config)))
        write_status(directory, {"state": "running"})
    report = _with_status(directory, report) if rank() == 0 else silent
    torch.manual_seed(config.seed)
    sinks = build_sinks(config, directory) if rank() == 0 else []
    model = build_detector(config, len(tested.classes), device)
    seconds = {"wall": 0.0, "cpu": 0.0}
    _load(model, config, runs, tested, report)
    if trained is not None:
        seconds = train(model, trained.samples, config, directory, device, report, sinks)
    ious = sorted({config.evaluation.nms_iou, *config.evaluation.nms_ious})
    began = time.perf_counter()
    results, densities = detect(model, tested, config, ious, device, lambda i, n: report("evaluate", i, n, {}))
    seconds["detect"] = time.perf_counter() - began
    cost = cost_of(config, model, seconds, device)
    del model  # so that the GPU is free for others
    torch.cuda.empty_cache()
    record = None
    if rank() == 0:
        report(SCORING, 0, 1, {})
        measured = measure(config, directory, tested, results, densities)
        report(SCORING, 1, 1, {})
        about = (summary(trained, tested), cost, provenance(device))
        record = _finish(_record(config, measured, *about), directory, sinks)
    first = all_parts(record)[0]
    assert first is not None
    return first


def _load(model: RetinaNet, config: Config, runs: Path, tested: Dataset, report: Report) -> None:
    """Give the detector the weights that the run starts from, if any."""
    if config.weights != "none":
        report("weights", 0, 1, {})
        load_weights(model, config, weights_path(config.weights, runs), tested.category_ids)
        report("weights", 1, 1, {})


def _record(config: Config, measured: Measured, read: DataSummary, cost: RunCost, where: Provenance) -> Record:
    return {
        "schema": SCHEMA,
        "id": run_id(config),
        "config": to_dict(config),
        **measured,
        "data": read,
        "cost": cost,
        **where,
    }


def _finish(found: Record, directory: Path, sinks: list[Sink]) -> Record:
    """Tell who hears of it, and write the record: a finished run is not gone back to."""
    for sink in sinks:
        if not found["config"]["schedule"]["steps"]:
            sink.on_resume(0)  # which the loop does otherwise
        sink.on_record(found)
    record = write_record(directory, found)
    write_status(directory, {"state": "done"})
    RunFolder(directory).checkpoint_before.unlink(missing_ok=True)  # it takes as much room as the weights
    return record
