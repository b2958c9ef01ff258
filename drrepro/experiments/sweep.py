"""Carry out the runs of a plan in worker processes; what is done is skipped, what fails does not stop the others."""

import json
import os
import sys
import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from drrepro.config import run_id
from drrepro.data.splits import open_split
from drrepro.experiments.records import read_record
from drrepro.files import write_json
from drrepro.progress import Report
from drrepro.schema import Config


@dataclass(frozen=True)
class Outcome:
    """How one run of a sweep ended."""

    run_id: str
    state: str  # skipped | done | failed
    why: str = ""


def state_of(config: Config, runs: Path) -> str:
    """Return done, resumable or new."""
    directory = runs / run_id(config)
    if read_record(directory) is not None:
        return "done"
    return "resumable" if (directory / "checkpoint.pt").is_file() else "new"


def sweep(configs: list[Config], runs: Path, data_folder: Path, jobs: int, watch: Report) -> list[Outcome]:
    """Run each configuration that has no record yet, ``jobs`` at a time, each in a process with its share of the cores.

    ``watch`` is a Report that gets the run's id as its stage, about once a second. The largest runs start first, so
    that the last ones to end are short. Raises UsageError before any run when the data cannot be read.
    """
    waiting = [config for config in configs if state_of(config, runs) != "done"]
    outcomes = [Outcome(run_id(c), "skipped") for c in configs if c not in waiting]
    _check_data(waiting, data_folder)
    waiting.sort(key=lambda c: c.input.scale**2 * c.schedule.steps * c.schedule.images_per_step)
    threads = max(1, _cores() // min(jobs, len(waiting) or 1))
    running: dict[str, SpawnProcess] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                config = waiting.pop()
                process = get_context("spawn").Process(target=_work, args=(config, runs, data_folder, threads))
                process.start()
                running[run_id(config)] = process
            time.sleep(0.2)
            for name in [name for name, process in running.items() if not process.is_alive()]:
                outcomes.append(_outcome(name, running.pop(name), runs))
                watch(name, 1, 1, {})
            for name in running:
                _show(name, runs, watch)
    finally:
        for process in running.values():  # interrupted: what is running stops at its last checkpoint
            process.terminate()
            process.join()
    return outcomes


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_data(configs: list[Config], data_folder: Path) -> None:
    """Open each data set once, so that what is wrong with it is said before any run."""
    checked = []
    for config in configs:
        splits = ["train"] if config.schedule.steps else []
        for split in [*splits, config.evaluation.split]:
            if (config.data, split) not in checked:
                open_split(config.data, split, data_folder)
                checked.append((config.data, split))


def _outcome(name: str, process: SpawnProcess, runs: Path) -> Outcome:
    if process.exitcode == 0:
        return Outcome(name, "done")
    status = _status(name, runs)
    why = status["why"] if status.get("state") == "failed" else f"killed (exit code {process.exitcode})"
    return Outcome(name, "failed", why)


def _show(name: str, runs: Path, watch: Report) -> None:
    """Report what a run's status.json says of its progress; its end is reported when its process has ended."""
    status = _status(name, runs)
    if status.get("done", 0) < status.get("total", 0):
        watch(name, status["done"], status["total"], status["numbers"])


def _status(name: str, runs: Path) -> dict[str, Any]:
    try:
        content = json.loads((runs / name / "status.json").read_text())
    except (OSError, ValueError):
        return {}  # not started, or not yet at its first step
    return content if isinstance(content, dict) else {}


def _work(config: Config, runs: Path, data_folder: Path, threads: int) -> None:
    import torch

    from drrepro.experiments.run import run

    torch.set_num_threads(threads)
    try:
        run(config, runs, data_folder, lambda *_: None)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # the parent reads it from status.json
        known = type(error).__module__ == "drrepro.errors"
        why = str(error) if known else f"{type(error).__name__}: {error}"
        write_json(runs / run_id(config) / "status.json", {"state": "failed", "why": why})
        sys.exit(1)
