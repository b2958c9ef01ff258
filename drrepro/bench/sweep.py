"""What a sweep costs beside its runs: a process each, and the looking after it."""

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


def bench(configs: list[Config], data_folder: Path, progress: Callable[[int, int], None]) -> pd.DataFrame:
    """Return seconds per run: in this process, in a sweep with one job at a time, and the difference.

    The sweep starts its first process, which imports everything, within what is timed.
    Raises RunError when a run of the sweep fails.
    """
    count = len(configs)
    for config in configs:
        config.launcher.cpus = torch.get_num_threads()  # as many there as here
    with tempfile.TemporaryDirectory() as folder:
        run(configs[0], Path(folder) / "first", data_folder, silent)  # warms up
        start = time.perf_counter()
        for i, config in enumerate(configs):
            run(config, Path(folder) / "bare", data_folder, silent)
            progress(i + 1, 2 * count)
        bare = (time.perf_counter() - start) / count
        start = time.perf_counter()
        outcomes = sweep(configs, Path(folder) / "swept", data_folder, 1, silent)
        swept = (time.perf_counter() - start) / count
    progress(2 * count, 2 * count)
    if wrong := next((outcome for outcome in outcomes if outcome.state != "done"), None):
        raise RunError(f"{wrong.run_id}: {wrong.state} ({wrong.why})")
    seconds = {"in one process": bare, "in a sweep": swept, "overhead": swept - bare}
    return pd.DataFrame({"measured": list(seconds), "seconds": list(seconds.values())})
