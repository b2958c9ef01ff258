"""What the runs folder says of each run."""

import contextlib
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drrepro.errors import RunError, UsageError
from drrepro.files import read_json, write_json
from drrepro.runs.folder import RunFolder, run_folders
from drrepro.runs.lock import is_held, owner
from drrepro.runs.records import metrics_at, read_record
from drrepro.shape import EACH, misfit

SCORING = "score"  # the stage of a run in which it needs the CPU alone
SAID = {
    **dict.fromkeys(("state", "why", "stage"), str),
    **dict.fromkeys(("done", "total"), int),
    "seconds_left": float | None,
    "numbers": {EACH: float},
}


@dataclass(frozen=True)
class RunState:
    """One run: new, running, interrupted (it goes on from its checkpoint), failed, or done."""

    run_id: str
    state: str
    why: str = ""
    stage: str = ""  # train | evaluate | score
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    age_seconds: float = 0.0  # since it last said something
    AP: float | None = None  # at its own threshold, a fraction
    where: str = ""  # process and host
    numbers: dict[str, float] = field(default_factory=dict)


def state_of(directory: Path) -> RunState:
    """Return the state of the run in ``directory``, which need not exist."""
    folder, name, status = RunFolder(directory), directory.name, read_status(directory)
    path = next((p for p in (folder.record, folder.status) if p.is_file()), None)
    age = max(0.0, time.time() - path.stat().st_mtime) if path else 0.0  # a clock may have been moved back
    try:
        record = read_record(directory)
    except UsageError as error:  # of another version, or damaged: one such record must not hide the other runs
        return RunState(name, "failed", why=str(error), age_seconds=age)
    if record is not None:
        row = metrics_at(record, record["config"]["evaluation"]["score_threshold"]) or {}
        return RunState(name, "done", AP=row.get("AP"), age_seconds=age)
    if is_held(directory):
        who = owner(directory) or {}
        where = f"{who.get('host')}, process {who.get('pid')}" if who else ""
        fields = RunState.__dataclass_fields__
        progress = {key: status.get(key, fields[key].default) for key in ("stage", "done", "total")}
        numbers = status.get("numbers", {})
        left = status.get("seconds_left")
        return RunState(name, "running", **progress, seconds_left=left, age_seconds=age, where=where, numbers=numbers)
    if status.get("state") == "failed":
        return RunState(name, "failed", why=str(status.get("why", "")), age_seconds=age)
    if status or any(path.is_file() for path in folder.checkpoints):
        why = "interrupted" if status.get("state") == "interrupted" else "killed"
        return RunState(name, "interrupted", why=why, age_seconds=age)
    return RunState(name, "new")


def all_states(runs: Path) -> list[RunState]:
    """Return the states of all runs under ``runs``, by name."""
    return [state_of(folder.path) for folder in run_folders(runs)]


def remove(runs: Path, run_id: str) -> None:
    """Remove a run's folder. Raises UsageError for one that is not there or being carried out."""
    directory = runs / run_id
    if run_id in ("", ".", "..") or "/" in run_id or not RunFolder(directory).config.is_file():
        raise UsageError(f"{directory}: no run here; `drrepro runs list` names them")
    if is_held(directory):
        raise UsageError(f"{directory}: being carried out by {owner(directory)}; stop it first")
    shutil.rmtree(directory)


def write_error(directory: Path, error: BaseException) -> None:
    """Leave in status.json why a run has ended. What another rank has left is the cause and stays."""
    if isinstance(error, KeyboardInterrupt):
        status = {"state": "interrupted", "why": "interrupted"}
    elif isinstance(error, RunError | UsageError):
        status = {"state": "failed", "why": str(error)}
    else:
        status = {"state": "failed", "why": f"{type(error).__name__}: {error}"}
    if read_status(directory).get("state") != "failed":
        with contextlib.suppress(RunError):  # on a full disk: the first error is the one to tell
            write_status(directory, status)


def write_status(directory: Path, said: dict[str, Any]) -> None:
    """Let a run say something of itself."""
    write_json(RunFolder(directory).status, said)


def read_status(directory: Path) -> dict[str, Any]:
    """Return what a run last said of itself, nothing where it never did or that is damaged."""
    try:
        content = read_json(RunFolder(directory).status)
    except (OSError, ValueError):
        return {}
    kinds = SAID.keys() & content.keys() if isinstance(content, dict) else ()
    return {} if misfit(content, {key: SAID[key] for key in kinds}) else content
