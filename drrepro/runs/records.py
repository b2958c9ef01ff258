"""The run record: what a run measured, and all that is needed to say where it comes from."""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from drrepro.errors import UsageError
from drrepro.evaluation.densities import BINS
from drrepro.files import read_json, write_json
from drrepro.migrations import SCHEMA, migrate
from drrepro.runs.folder import RunFolder
from drrepro.shape import EACH, misfit

Row = dict[str, float | None]  # of metrics: nms_iou, score_threshold, and the metrics as fractions


class Density(TypedDict):
    """How many scores of foreground and of background lie in each of BINS, as the matcher of these IoUs labels them."""

    fg_iou: float
    bg_iou: float
    foreground: list[int]
    background: list[int]
    auc: float | None  # of finer bins; see `drrepro.evaluation.densities.separation`


class Measured(TypedDict):
    """What a run measured; of a secret test split only the path of the zip for its server."""

    metrics: list[Row]
    curve: list[Row]
    densities: list[Density]  # the first with the labels of the run's own matcher; of a secret test split none
    submission: NotRequired[str | None]


class DataSummary(TypedDict):
    """What a run read."""

    train_images: int | None
    test_images: int
    sha256: str | None
    classes: list[str]
    dropped_boxes: list[str]
    dropped_images: dict[str, str]


class RunCost(TypedDict):
    """What a run took."""

    train_seconds: float
    train_cpu_seconds: float
    steps_per_second: float
    peak_memory_mb: float
    parameters: int
    detect_seconds: NotRequired[float]  # of all test images, their reading included; records of before lack it
    gpu_memory_mb: NotRequired[float]  # on a GPU


class Provenance(TypedDict):
    """Where a record comes from: date, code, packages, machine."""

    finished: str
    commit: str | None
    dirty: bool | None
    python: str
    versions: dict[str, str]
    machine: dict[str, Any]


class Record(Measured, Provenance):
    """A finished run, as record.json has it; ``config`` is its whole configuration as plain data."""

    schema: int
    id: str
    config: dict[str, Any]
    data: DataSummary
    cost: RunCost


DENSITY = {
    **dict.fromkeys(("fg_iou", "bg_iou"), float),
    **dict.fromkeys(("foreground", "background"), [int] * BINS),
    "auc": float | None,
}
LOGGED = {"step": int, "classification": float, "box": float}
SHAPE = {
    "id": str,
    "config": {
        "seed": int,
        "data": {"name": str, "embedded": bool},
        "input": {"scale": int},
        "loss": {"name": str},
        "schedule": {"steps": int, "images_per_step": int},
        "evaluation": {"split": str, "score_threshold": float, "score_thresholds": [float], "nms_iou": float},
    },
    "metrics": [{"score_threshold": float, "nms_iou": float, EACH: float | None}],
    "densities": [DENSITY],
    "curve": [{"score_threshold": float, "AP": float | None}],
    "data": {
        **dict.fromkeys(("train_images", "test_images"), int | None),
        "sha256": str | None,
        "classes": [str],
        "dropped_boxes": [str],
        "dropped_images": {EACH: str},
    },
    "cost": dict.fromkeys(("train_seconds", "train_cpu_seconds", "steps_per_second", "peak_memory_mb"), float),
    **dict.fromkeys(("finished", "python"), str),
    "commit": str | None,
    "dirty": bool | None,
    "versions": {"torch": str, EACH: str},
    "machine": {"cpu": str, "threads": int},
}
# What migrations look at, of any version.
EARLIEST: dict[str, Any] = {
    "config": {"loss": {}, "matcher": {}},
    "data": {},
    "densities": ([], {}, type(None)),
}


def write_record(directory: Path, record: Record) -> Record:
    """Write record.json atomically and return it as it reads back: numbers that do not exist (NaN) are null."""
    complete: Record = _without_nan({"schema": SCHEMA, **record})
    write_json(RunFolder(directory).record, complete)
    return complete


def read_record(directory: Path) -> Record | None:
    """Return the record of a run, None where it has none. Raises UsageError for a damaged one or another version."""
    return load_record(RunFolder(directory).record)


def load_record(path: Path) -> Record | None:
    """Return the record in a file, as `read_record` does."""
    try:
        record = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not readable ({error}); move {path.parent} away to run it again") from None
    version = record.get("schema") if isinstance(record, dict) else None
    if type(version) is not int or not 1 <= version <= SCHEMA:
        raise UsageError(
            f"{path}: written by another version of drrepro (schema {version}, this one reads 1 to {SCHEMA}); "
            f"move {path.parent} away"
        )
    if wrong := misfit(record, EARLIEST):
        raise UsageError(f"{path}: damaged ({wrong}); move {path.parent} away to run it again")
    record = migrate(record)
    if wrong := misfit(record, SHAPE):
        raise UsageError(f"{path}: damaged ({wrong}); move {path.parent} away to run it again")
    return record  # type: ignore[return-value]  # its shape was looked at


def require_record(directory: Path) -> Record:
    """Return the record of a run. Raises UsageError where it has none."""
    record = read_record(directory)
    if record is None:
        raise UsageError(f"{directory}: no finished run here")
    return record


def metrics_at(record: Record, score_threshold: float, nms_iou: float | None = None) -> Row | None:
    """Return the metrics at a threshold and NMS IoU (by default the run's own), None if they were not measured."""
    nms_iou = record["config"]["evaluation"]["nms_iou"] if nms_iou is None else nms_iou
    for row in record["metrics"]:
        if row["score_threshold"] == score_threshold and row["nms_iou"] == nms_iou:
            return row
    return None


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the lines of metrics.jsonl; a half written or damaged one is left out."""
    lines = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        with suppress(ValueError, RecursionError):
            lines.append(json.loads(line))
    return [line for line in lines if not misfit(line, LOGGED)]


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
