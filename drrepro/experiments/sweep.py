"""Carry out the runs of a plan in worker processes; what is done is skipped, what fails does not stop the others."""

import json
import os
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from drrepro.config import run_id
from drrepro.errors import RunError, UsageError
from drrepro.experiments.records import read_record
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


def sweep(
    configs: list[Config],
    runs: Path,
    data_folder: Path,
    jobs: int,
    watch: Report,
) -> list[Outcome]:
    """Run each configuration that has no record yet, ``jobs`` at a time, each with its share of the cores.

    ``watch`` is a Report that gets the run's id as its stage, about once a second. The largest runs start first, so
    that the last ones to end are short.
    """
    outcomes = []
    waiting = []
    for config in configs:
        if state_of(config, runs) == "done":
            outcomes.append(Outcome(run_id(config), "skipped"))
        else:
            waiting.append(config)
    waiting.sort(key=lambda c: c.input.scale**2 * c.schedule.steps * c.schedule.images_per_step, reverse=True)
    if not waiting:
        return outcomes
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(min(jobs, len(waiting)), get_context("spawn"), _limit_threads, (threads,)) as pool:
        futures = {pool.submit(_work, config, runs, data_folder): run_id(config) for config in waiting}
        try:
            outcomes += _collect(futures, runs, watch)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return outcomes


def _collect(futures: dict[Future[None], str], runs: Path, watch: Report) -> list[Outcome]:
    outcomes = []
    pending = set(futures)
    while pending:
        finished, pending = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
        for future in finished:
            error = future.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            outcomes.append(Outcome(futures[future], "failed" if error else "done", str(error or "")))
            watch(futures[future], 1, 1, {})
        for future in pending:
            _show_status(futures[future], runs, watch)
    return outcomes


def _show_status(name: str, runs: Path, watch: Report) -> None:
    """Report what a run's status.json says of its progress."""
    try:
        status = json.loads((runs / name / "status.json").read_text())
        if status["done"] < status["total"]:  # the end is reported when the process has written its record
            watch(name, status["done"], status["total"], status["numbers"])
    except (OSError, ValueError, KeyError):
        return  # not started, or not yet at its first step


def _limit_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _work(config: Config, runs: Path, data_folder: Path) -> None:
    from drrepro.experiments.run import run

    try:
        run(config, runs, data_folder, lambda *_: None)
    except (UsageError, RunError):
        raise
    except Exception as error:  # whatever it is must survive the way back to the parent process
        raise RunError(f"{run_id(config)}: {type(error).__name__}: {error}") from None
