"""One run: train, evaluate, write the record. A finished run is never run twice."""

import contextlib
import gzip
import json
import math
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from drrepro.config import run_id, to_dict
from drrepro.data.dataset import Dataset
from drrepro.data.splits import open_split
from drrepro.distributed import all_parts, process_group, rank, world
from drrepro.errors import RunError, UsageError
from drrepro.evaluation.coco import Matches, Results, accumulate, match_detections, summarize
from drrepro.evaluation.detect import detect
from drrepro.evaluation.voc import match_voc, summarize_voc
from drrepro.experiments.provenance import provenance
from drrepro.experiments.records import Record, read_record, write_matches, write_record
from drrepro.files import atomic_write, write_json, write_text
from drrepro.models.retinanet import RetinaNet
from drrepro.progress import Report, silent
from drrepro.schema import Config
from drrepro.training.checkpoint import load_weights
from drrepro.training.loop import train

CURVE = [round(0.05 + 0.01 * i, 2) for i in range(91)]  # score thresholds of the AP curve


def run(config: Config, runs: Path, data_folder: Path, report: Report) -> Record:
    """Carry out ``config`` in its folder under ``runs`` and return its record; go on from a checkpoint if there is one.

    With ``weights`` the detector starts from those of another run; with no ``schedule.steps`` it is evaluated only.
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
    trained = open_split(config.data, "train", data_folder) if config.schedule.steps else None
    tested = open_split(config.data, config.evaluation.split, data_folder)
    _check_classes(config, runs, trained, tested)
    if rank() == 0:
        write_text(directory / "config.yaml", OmegaConf.to_yaml(to_dict(config)))
    report = _with_status(directory, report) if rank() == 0 else silent
    try:
        with process_group(device):
            record = _carry_out(config, directory, runs, trained, tested, device, report)
    except BaseException as error:
        why = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
        with contextlib.suppress(RunError):  # on a full disk: the first error is the one to tell
            write_json(directory / "status.json", {"state": "failed", "why": why})
        raise
    if rank() == 0:
        write_json(directory / "status.json", {"state": "done"})
    return record


def pick_device(name: str) -> torch.device:
    """Return the device; ``auto`` is cuda where there is one: this rank's own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and world() > 1:
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"runtime.device={name}: {str(error).splitlines()[0]}") from None
    return device


def _check_parts(config: Config) -> None:
    """Raise UsageError unless the images of a step can be shared equally."""
    images, accumulate = config.schedule.images_per_step, config.schedule.accumulate
    if images % (world() * accumulate):
        raise UsageError(
            f"schedule.images_per_step={images} schedule.accumulate={accumulate}: {world()} ranks with {accumulate} "
            "passes each cannot share them equally"
        )


def _check_weights(config: Config, runs: Path) -> None:
    """Raise UsageError for weights that are not there, and for random ones that would be frozen."""
    if config.weights != "none":
        if not (runs / config.weights.removeprefix("run:") / "checkpoint.pt").is_file():
            raise UsageError(f"weights={config.weights}: no checkpoint in {runs / config.weights.removeprefix('run:')}")
    elif config.model.backbone != "small" and (config.model.frozen_stages or config.model.norm == "frozen"):
        raise UsageError(
            f"model.frozen_stages={config.model.frozen_stages} model.norm={config.model.norm}: random weights would be "
            "frozen; set model.frozen_stages=0 model.norm=batch"
        )


def _check_classes(config: Config, runs: Path, trained: Dataset | None, tested: Dataset) -> None:
    """Raise UsageError unless the classes tested are those trained, in the same order."""
    if trained is not None:
        known, where = trained.classes, "the train split"
    elif config.weights != "none":
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

    def both(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        nonlocal last
        report(stage, done, total, numbers)
        if time.monotonic() - last >= 1:
            last = time.monotonic()
            status = {"state": "running", "stage": stage, "done": done, "total": total, "numbers": numbers}
            write_json(directory / "status.json", status)

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
    torch.manual_seed(config.seed)
    model = RetinaNet(config.model, len(tested.classes)).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    seconds = {"wall": 0.0, "cpu": 0.0}
    if config.weights != "none":
        load_weights(model, runs / config.weights.removeprefix("run:"))
    if trained is not None:
        seconds = train(model, trained.samples, config, directory, device, report)
    ious = sorted({config.evaluation.nms_iou, *config.evaluation.nms_ious})
    results, densities = detect(model, tested, config, ious, device, lambda i, n: report("evaluate", i, n, {}))
    record: Record = {}
    if rank() == 0:
        record = {
            "id": run_id(config),
            "config": to_dict(config),
            **_measure(config, directory, tested, results),
            "densities": {name: counts.tolist() for name, counts in vars(densities).items()},
            "data": _data_summary(trained, tested),
            "cost": _cost(config, model, seconds),
            **provenance(device),
        }
        record = write_record(directory, record)
    return all_parts(record)[0]


def _measure(config: Config, directory: Path, tested: Dataset, results: dict[float, Results]) -> dict[str, Any]:
    """Return the metrics at every NMS IoU and threshold, and the curve; keep matches and detections."""
    truth = tested.ground_truth()
    metrics: list[dict[str, Any]] = []
    curve: list[dict[str, float]] = []
    for iou, found in results.items():
        matches = match_detections(truth, found)
        voc = match_voc(truth, found) if config.data.format == "voc" else None
        for threshold in sorted({*config.evaluation.score_thresholds, config.evaluation.score_threshold}):
            row = {"nms_iou": iou, "score_threshold": threshold, **summarize(matches, threshold)}
            metrics.append({**row, **(summarize_voc(voc, threshold) if voc else {})})
        if iou == config.evaluation.nms_iou:
            curve = _curve(matches, metrics[0]["score_threshold"])
            write_matches(directory, matches)
            _write_detections(directory, found)
    return {"metrics": metrics, "curve": curve}


def _curve(matches: Matches, lowest: float) -> list[dict[str, float]]:
    """Return AP over CURVE, from the lowest threshold that was evaluated."""
    rows = []
    for threshold in CURVE:
        if threshold >= lowest:
            precision, _ = accumulate(matches, threshold, areas=1, limit=100)
            ap = float(np.nanmean(precision)) if np.isfinite(precision).any() else float("nan")
            rows.append({"score_threshold": threshold, "AP": ap})
    return rows


def _data_summary(trained: Dataset | None, tested: Dataset) -> dict[str, Any]:
    return {
        "train_images": len(trained.samples) if trained else None,
        "test_images": len(tested.samples),
        "sha256": tested.sha256,
        "classes": tested.classes,
        "dropped_boxes": [*(trained.dropped if trained else []), *tested.dropped],
    }


def _cost(config: Config, model: RetinaNet, seconds: dict[str, float]) -> dict[str, float | int]:
    kilobytes = 1 if sys.platform != "darwin" else 1024
    return {
        "train_seconds": round(seconds["wall"], 1),
        "train_cpu_seconds": round(seconds["cpu"], 1),
        "steps_per_second": round(config.schedule.steps / seconds["wall"], 2) if seconds["wall"] else 0.0,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // kilobytes // 1024,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _write_detections(directory: Path, results: list[dict[str, Any]]) -> None:
    packed = gzip.compress(json.dumps(results).encode(), compresslevel=6, mtime=0)
    atomic_write(directory / "detections.json.gz", lambda file: file.write(packed))
