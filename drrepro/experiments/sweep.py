"""Carry out the runs of a plan through a launcher; what is done is skipped, what fails does not stop the others."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from drrepro.config import run_id, to_dict
from drrepro.data.splits import open_splits
from drrepro.experiments.launchers import Handle, Local, Ray, Slurm, build_launcher
from drrepro.experiments.run import needed_splits
from drrepro.files import write_text
from drrepro.interrupt import deferred
from drrepro.progress import Report
from drrepro.runs.folder import RunFolder
from drrepro.runs.lock import is_held
from drrepro.runs.states import SCORING, state_of
from drrepro.schema import Config, DataConfig

POLL = 0.2  # s between looks at the jobs
GRACE = 120.0  # s for a stopped job to write its checkpoint


@dataclass(frozen=True)
class Outcome:
    """How one run of a sweep ended; ``log`` is what its process printed."""

    run_id: str
    state: str  # skipped | done | interrupted | failed | stopped
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
    What another process is at is left to it. ``watch`` gets the run's id as its stage, and while it runs its id and its
    own stage, as in "ID train". The largest runs start first, so that the last ones to end are short. Raises UsageError
    before any run when the data cannot be read or an image is bad. Interrupted, it stops its jobs, which leave
    checkpoints.
    """
    outcomes, waiting = [], []
    for config in configs:
        before = state_of(runs / run_id(config))
        if before.state == "done":
            outcomes.append(Outcome(before.run_id, "skipped"))
        elif before.state == "failed" and not retry_failed:
            why = f"{before.why} (before; --retry-failed runs it again)"
            outcomes.append(Outcome(before.run_id, "failed", why, str(RunFolder(runs / before.run_id).log)))
        else:
            waiting.append(config)
    if waiting and not (fail_fast and any(outcome.state == "failed" for outcome in outcomes)):
        _check_data(waiting, data_folder, watch)
        waiting.sort(key=lambda c: c.input.scale**2 * c.schedule.steps * c.schedule.images_per_step, reverse=True)
        for outcome in _run_all(waiting, runs, data_folder, min(jobs, len(waiting)), watch):
            outcomes.append(outcome)
            if fail_fast and outcome.state == "failed":
                break
    ended = {outcome.run_id for outcome in outcomes}
    return outcomes + [Outcome(name, "stopped") for name in map(run_id, configs) if name not in ended]


def _run_all(configs: list[Config], runs: Path, data_folder: Path, jobs: int, watch: Report) -> Iterator[Outcome]:
    """Yield the outcome of each run when it has ended; stop what still runs when the caller goes away."""
    waiting = {run_id(config): config for config in configs}
    failed = {name for name in waiting if state_of(runs / name).state == "failed"}  # before
    launcher = build_launcher(configs[0].launcher, jobs, runs)
    running: dict[str, Handle] = {}
    with deferred() as signalled:
        try:
            while waiting or running:
                for name in list(waiting):
                    state = state_of(runs / name).state
                    if state == "done" or (state == "failed" and name not in failed):  # by another process
                        del waiting[name]
                        yield _outcome(runs, name, 0)
                    elif state != "running" and (launcher.slots is None or _busy(running, runs) < launcher.slots):
                        running[name] = _start(launcher, waiting.pop(name), runs / name, data_folder)
                        watch(name, 0, 1, {})
                time.sleep(POLL)
                if signalled():
                    raise KeyboardInterrupt
                for name in list(running):
                    code = running[name].exit_code()
                    if code is not None:
                        del running[name]
                        watch(name, 1, 1, {})
                        yield _outcome(runs, name, code)
                    else:
                        _show(runs / name, watch)
        finally:
            _stop(running, runs)


def _busy(running: dict[str, Handle], runs: Path) -> int:
    """Return how many jobs take a slot: one that only scores what it found leaves its GPU to the next."""
    return sum(not (state_of(runs / name).stage == SCORING and running[name].leave_gpu()) for name in running)


def _start(launcher: Local | Slurm | Ray, config: Config, directory: Path, data_folder: Path) -> Handle:
    write_text(RunFolder(directory).config, OmegaConf.to_yaml(to_dict(config)))
    RunFolder(directory).status.unlink(missing_ok=True)  # of the time before, which may say that it scores
    return launcher.start([str(directory.resolve()), str(data_folder.resolve())], directory.resolve())


def _stop(running: dict[str, Handle], runs: Path) -> None:
    """Stop the jobs and wait for their checkpoints: some engines take a job for ended before its processes are."""
    for handle in running.values():
        handle.stop()
    deadline = time.monotonic() + GRACE
    while running and time.monotonic() < deadline:
        time.sleep(POLL)
        if all(handle.exit_code() is not None and not is_held(runs / name) for name, handle in running.items()):
            return


def _outcome(runs: Path, name: str, code: int) -> Outcome:
    """Return how a run ended: what it said itself, or if it left no word how its process ended."""
    now, log = state_of(runs / name), RunFolder(runs / name).log
    if now.state == "done":
        return Outcome(name, "done")
    if now.state == "failed" or (now.state == "interrupted" and now.why == "interrupted"):
        return Outcome(name, now.state, now.why, str(log))
    return Outcome(name, "failed", f"killed (exit code {code})", str(log))


def _check_data(configs: list[Config], data_folder: Path, watch: Report) -> None:
    """Open each data set once, so that what is wrong with it is said before any run."""
    needed: dict[str, tuple[DataConfig, list[str]]] = {}
    for config in configs:
        _, splits = needed.setdefault(repr(config.data), (config.data, []))
        splits += [split for split in needed_splits(config) if split not in splits]
    for data, splits in needed.values():
        open_splits(data, splits, data_folder, watch)


def _show(directory: Path, watch: Report) -> None:
    """Report what a run says of its progress; its end is reported when its process has ended."""
    state = state_of(directory)
    if state.state == "running" and state.done < state.total:
        watch(f"{directory.name} {state.stage}", state.done, state.total, state.numbers)
