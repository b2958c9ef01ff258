"""What all score thresholds cost beside evaluating one: forward pass, matching and accumulation included."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from drrepro.config import from_dict
from drrepro.data.splits import open_split
from drrepro.errors import UsageError
from drrepro.evaluation import evaluate_coco, threshold_sweep
from drrepro.evaluation.detect import detect
from drrepro.experiments.records import read_record
from drrepro.experiments.run import pick_device
from drrepro.models.checkpoints import load_weights
from drrepro.models.retinanet import RetinaNet

REPEATS = 3


def bench(weights: str, runs: Path, data_folder: Path, progress: Callable[[int, int], None]) -> pd.DataFrame:
    """Return median seconds of one evaluation at the lowest threshold, of all thresholds, and their ratio."""
    directory = runs / weights.removeprefix("run:")
    record = read_record(directory) if weights.startswith("run:") else None
    if record is None:
        raise UsageError(f"weights={weights}: needs run:ID, a finished run in {runs}")
    config = from_dict(record["config"], directory)
    dataset = open_split(config.data, config.evaluation.split, data_folder)
    device = pick_device(config.runtime.device)
    model = RetinaNet(config.model, len(dataset.classes)).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    load_weights(model, replace(config, weights=weights), runs, dataset.category_ids)
    truth, iou = dataset.ground_truth(), config.evaluation.nms_iou
    thresholds = config.evaluation.score_thresholds
    seconds: dict[str, list[float]] = {"one": [], "all": []}
    for repeat in range(REPEATS):
        for name in seconds:
            start = time.perf_counter()
            results, _ = detect(model, dataset, config, [iou], device, lambda *_: None)
            if name == "one":
                evaluate_coco(truth, results[iou])
            else:
                threshold_sweep(truth, results[iou], thresholds)
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
