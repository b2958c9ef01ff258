"""What evaluation at the size of COCO's val2017 costs, beside pycocotools and hotcoco, on a drawn problem."""

import contextlib
import importlib.util
import io
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drrepro.bench.bootstrap import draw_problem
from drrepro.evaluation.coco import METRICS, GroundTruth, Results, evaluate_coco, match_detections, summarize_at
from drrepro.runs.kept import write_matches

IMAGES, CLASSES, DETECTIONS = 5000, 80, 100  # as many detections as an image can have
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
Numbers = list[float]  # by METRICS, NaN where there is no object


def bench(
    progress: Callable[[int, int], None], images: int = IMAGES, classes: int = CLASSES, detections: int = DETECTIONS
) -> pd.DataFrame:
    """Return seconds and peak memory of each evaluator in a process of its own; of hotcoco where it is installed.

    The content of both files is in memory before; peak memory includes it and what is imported. The ratio is of CPU
    seconds, in which what else the machine does counts less. Raises AssertionError when numbers differ by more than
    1e-12.
    """
    names = [name for name in EVALUATORS if name != "hotcoco" or importlib.util.find_spec(name)]
    rows, numbers = [], []
    with tempfile.TemporaryDirectory() as folder:
        truth, found, _ = draw_problem(images, classes, detections, seed=0)
        for name, content in {"truth": truth, "found": found}.items():
            Path(folder, f"{name}.json").write_text(json.dumps(content))
        progress(1, 1 + len(names))
        for done, name in enumerate(names, start=2):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                own, measured = pool.submit(_measure, name, Path(folder)).result()
            numbers.append(own)
            rows.append({"evaluator": name, "images": images, "detections": len(found), **measured})
            progress(done, 1 + len(names))
    np.testing.assert_allclose(numbers, np.broadcast_to(numbers[0], (len(names), len(METRICS))), rtol=0, atol=1e-12)
    return pd.DataFrame(rows).assign(ratio=lambda frame: frame["cpu_seconds"] / frame["cpu_seconds"].iloc[0])


def _measure(name: str, folder: Path) -> tuple[Numbers, dict[str, float]]:
    truth, found = (json.loads((folder / f"{part}.json").read_text()) for part in ("truth", "found"))
    before, start, cpu = _peak_memory(), time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        numbers = EVALUATORS[name](truth, found)
    taken = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    return numbers, {**taken, "mb_before": before, "mb_peak": _peak_memory()}


def _peak_memory() -> float:
    """Return MB, NaN off Linux. (getrusage's includes what the parent had when it started this process.)"""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), float("nan"))


def _ours(truth: GroundTruth, found: Results) -> Numbers:
    return list(evaluate_coco(truth, found).values())


def _all_of_a_run(truth: GroundTruth, found: Results) -> Numbers:
    matches = match_detections(truth, found)
    numbers, *_ = summarize_at(matches, [float("-inf"), *THRESHOLDS])
    with tempfile.TemporaryDirectory() as folder:
        write_matches(Path(folder), matches)
    return list(numbers.values())


def _pycocotools(truth: GroundTruth, found: Results) -> Numbers:
    from pycocotools import coco, cocoeval

    indexed = coco.COCO()
    indexed.dataset = truth
    indexed.createIndex()
    return _evaluate(cocoeval.COCOeval(indexed, indexed.loadRes(found), "bbox"))


def _hotcoco(truth: GroundTruth, found: Results) -> Numbers:
    import hotcoco

    indexed = hotcoco.COCO(truth)
    return _evaluate(hotcoco.COCOeval(indexed, indexed.load_res(found), "bbox"))


def _evaluate(evaluator: Any) -> Numbers:
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return [value if value > -1 else float("nan") for value in evaluator.stats]


EVALUATORS: dict[str, Callable[[GroundTruth, Results], Numbers]] = {
    "drrepro, twelve numbers": _ours,
    f"drrepro, also {len(THRESHOLDS)} thresholds and kept matches": _all_of_a_run,
    "pycocotools": _pycocotools,
    "hotcoco": _hotcoco,
}
