"""What all score thresholds cost beside evaluating one, both as a run does it: forward pass, matching, metrics."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from drrepro.config import from_dict
from drrepro.data.splits import open_split
from drrepro.detection.detect import detect
from drrepro.errors import UsageError
from drrepro.experiments.device import pick_device
from drrepro.experiments.measure import score
from drrepro.models.checkpoints import load_weights
from drrepro.models.retinanet import build_detector
from drrepro.runs.folder import weights_path
from drrepro.runs.records import read_record

REPEATS = 3


def bench(weights: str, runs: Path, data_folder: Path, progress: Callable[[int, int], None]) -> pd.DataFrame:
    """Return median seconds of an evaluation at the run's own threshold, of all thresholds, and their ratio."""
    directory = runs / weights.removeprefix("run:")
    record = read_record(directory) if weights.startswith("run:") else None
    if record is None:
        raise UsageError(f"weights={weights}: needs run:ID, a finished run in {runs}")
    config = from_dict(record["config"], directory)
    dataset = open_split(config.data, config.evaluation.split, data_folder)
    device = pick_device(config.runtime.device)
    model = build_detector(config, len(dataset.classes), device)
    load_weights(model, replace(config, weights=weights), weights_path(weights, runs), dataset.category_ids)
    truth, iou = dataset.ground_truth(), config.evaluation.nms_iou
    thresholds = config.evaluation.score_thresholds
    alone = replace(config, evaluation=replace(config.evaluation, score_thresholds=[config.evaluation.score_threshold]))
    seconds: dict[str, list[float]] = {"one": [], "all": []}
    for repeat in range(REPEATS):
        for name in seconds:
            start = time.perf_counter()
            results, _ = detect(model, dataset, config, [iou], device, lambda *_: None)
            score(config if name == "all" else alone, truth, results)
            seconds[name].append(time.perf_counter() - start)
        progress(repeat + 1, REPEATS)
    medians = {name: sorted(values)[REPEATS // 2] for name, values in seconds.items()}
    return pd.DataFrame(
        [
            {"evaluated": "one threshold", "images": len(dataset.samples), "seconds": medians["one"], "ratio": 1.0},
            {
                "evaluated": f"{len(thresholds)} thresholds",
                "images": len(dataset.samples),
                "seconds": medians["all"],
                "ratio": medians["all"] / medians["one"],
            },
        ]
    )
