"""Carry out the runs of a plan through a launcher; what is done is skipped, what fails does not stop the others."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from drrepro.config import run_id, to_dict
from drrepro.data.splits import open_split
from drrepro.experiments.launchers import LOG, Handle, build_launcher
from drrepro.experiments.states import state_of
from drrepro.files import write_text
from drrepro.interrupt import interruptible
from drrepro.progress import Report
from drrepro.schema import Config

POLL = 0.2  # s between looks at the jobs
GRACE = 120.0  # s for a stopped job to write its checkpoint


@dataclass(frozen=True)
class Outcome:
    """How one run of a sweep ended; ``log`` is what its process printed."""

    run_id: str
    state: str  # skipped | done | failed | stopped
    why: str = ""
    log: str = ""


def sweep(
    configs: list[Config],
    runs: Path,
    data_folder: Path,
    jobs: int,
    watch: Report,
    retry_failed: bool = False,
    fail_fast: bool = False,
) -> list[Outcome]:
    """Run each configuration that has no record yet, at most ``jobs`` at a time where the launcher does not queue.

    What failed before is run again only with ``retry_failed``; ``fail_fast`` stops everything at the first failure.
    ``watch`` gets the run's id as its stage. The largest runs start first, so that the last ones to end are short.
    Raises UsageError before any run when the data cannot be read. Interrupted, it stops its jobs, which leave
    checkpoints.
    """
    outcomes, waiting = [], []
    for config in configs:
        before = state_of(runs / run_id(config))
        if before.state == "done":
            outcomes.append(Outcome(before.run_id, "skipped"))
        elif before.state == "failed" and not retry_failed:
            outcomes.append(_outcome(runs, before.run_id, f"{before.why} (before; --retry-failed runs it again)"))
        else:
            waiting.append(config)
    if not waiting or (fail_fast and any(outcome.state == "failed" for outcome in outcomes)):
        return outcomes
    _check_data(waiting, data_folder)
    waiting.sort(key=lambda c: c.input.scale**2 * c.schedule.steps * c.schedule.images_per_step)
    with interruptible():
        for outcome in _run_all(waiting, runs, data_folder, min(jobs, len(waiting)), watch):
            outcomes.append(outcome)
            if fail_fast and outcome.state == "failed":
                break
    return outcomes


def _run_all(waiting: list[Config], runs: Path, data_folder: Path, jobs: int, watch: Report) -> Iterator[Outcome]:
    """Yield the outcome of each run when it has ended; stop what still runs when the caller goes away."""
    launcher = build_launcher(waiting[0].launcher, jobs, runs)
    running: dict[str, Handle] = {}
    try:
        while waiting or running:
            while waiting and (launcher.slots is None or len(running) < launcher.slots):
                config = waiting.pop()
                directory = runs / run_id(config)
                write_text(directory / "config.yaml", OmegaConf.to_yaml(to_dict(config)))
                arguments = [str(directory.resolve()), str(data_folder.resolve())]
                running[run_id(config)] = launcher.start(arguments, directory.resolve())
            time.sleep(POLL)
            for name in list(running):
                code = running[name].exit_code()
                if code is not None:
                    del running[name]
                    watch(name, 1, 1, {})
                    yield _outcome(runs, name, "" if code == 0 else f"killed (exit code {code})")
                else:
                    _show(runs / name, watch)
    finally:
        _stop(running)


def _stop(running: dict[str, Handle]) -> None:
    for handle in running.values():
        handle.stop()
    deadline = time.monotonic() + GRACE
    while any(handle.exit_code() is None for handle in running.values()) and time.monotonic() < deadline:
        time.sleep(POLL)


def _outcome(runs: Path, name: str, why: str) -> Outcome:
    """Return how a run ended; ``why`` is what is known if it left no word itself."""
    now, log = state_of(runs / name), runs / name / LOG
    if now.state == "done":
        return Outcome(name, "done")
    return Outcome(name, "failed", now.why if now.state == "failed" and not why.endswith("again)") else why, str(log))


def _check_data(configs: list[Config], data_folder: Path) -> None:
    """Open each data set once, so that what is wrong with it is said before any run."""
    checked = []
    for config in configs:
        splits = ["train"] if config.schedule.steps else []
        for split in [*splits, config.evaluation.split]:
            if (config.data, split) not in checked:
                open_split(config.data, split, data_folder)
                checked.append((config.data, split))


def _show(directory: Path, watch: Report) -> None:
    """Report what a run says of its progress; its end is reported when its process has ended."""
    state = state_of(directory)
    if state.state == "running" and state.done < state.total:
        watch(directory.name, state.done, state.total, state.numbers)
