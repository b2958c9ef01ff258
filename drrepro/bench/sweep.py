"""What a sweep costs beside its runs: a process each, which imports everything anew, and the looking after it."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from drrepro.errors import RunError
from drrepro.experiments.run import run
from drrepro.experiments.sweep import sweep
from drrepro.progress import silent
from drrepro.schema import Config

TINY = ["schedule.steps=4", "schedule.warmup_steps=1", "input.scale=64"]
IMPORT = "import torch, drrepro.experiments.run"
REPEATS = 5  # of the import


def bench(configs: list[Config], data_folder: Path, progress: Callable[[int, int], None]) -> pd.DataFrame:
    """Return seconds per run: in this process, in a sweep with one job at a time, and what the difference consists of.

    Raises RunError when a run of the sweep fails.
    """
    count, total = len(configs), 2 * len(configs) + REPEATS
    for config in configs:
        config.launcher.cpus = torch.get_num_threads()  # as many there as here
    with tempfile.TemporaryDirectory() as folder:
        run(configs[0], Path(folder) / "first", data_folder, silent)  # warms up
        start = time.perf_counter()
        for i, config in enumerate(configs):
            run(config, Path(folder) / "bare", data_folder, silent)
            progress(i + 1, total)
        bare = (time.perf_counter() - start) / count
        start = time.perf_counter()
        outcomes = sweep(configs, Path(folder) / "swept", data_folder, 1, silent)
        swept = (time.perf_counter() - start) / count
    progress(2 * count, total)
    if wrong := next((outcome for outcome in outcomes if outcome.state != "done"), None):
        raise RunError(f"{wrong.run_id}: {wrong.state} ({wrong.why})")
    imports = []
    for i in range(REPEATS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORT], check=True)
        imports.append(time.perf_counter() - start)
        progress(2 * count + i + 1, total)
    imported = statistics.median(imports)
    seconds = {
        "in one process": bare,
        "in a sweep": swept,
        "overhead": swept - bare,
        "of it: start of Python, import of torch and drrepro": imported,
        "of it: the launcher": swept - bare - imported,
    }
    return pd.DataFrame({"measured": list(seconds), "seconds": list(seconds.values())})
