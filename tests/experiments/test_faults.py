"""A full disk, a folder that cannot be written, a clock that goes back: said in one line, and nothing is lost."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drrepro.config import compose, run_id
from drrepro.errors import RunError
from drrepro.experiments.run import run
from drrepro.progress import silent
from drrepro.runs.records import read_record
from drrepro.runs.states import all_states, state_of
from drrepro.training.checkpoint import load_checkpoint
from tests.conftest import TINY

SMALL = [*TINY, "schedule.precision=fp32", "evaluation.score_thresholds=[0.05]"]
FILES = ["checkpoint.pt", "record.json", "detections.json.gz", "matches.npz", "metrics.jsonl", "owner.json"]


@pytest.fixture
def full(monkeypatch):
    """Return a function that makes the disk full for the ``number``th file of a name, and whatever follows."""
    real, writes = os.fsync, []

    def fill(name, number):
        def fsync(descriptor):
            writes.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
            if sum(file.startswith(f".{name}.") for file in writes) >= number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        monkeypatch.setattr("drrepro.files.os.fsync", fsync)

    return fill


@pytest.mark.parametrize("name", FILES)
def test_a_full_disk_is_said_and_nothing_written_before_is_lost(name, data_folder, tmp_path, full, monkeypatch):
    first = run(compose(SMALL), tmp_path, data_folder, silent)
    second = compose([*SMALL, "seed=1"])
    directory = tmp_path / run_id(second)
    full(name, 2 if name == "checkpoint.pt" else 1)
    with pytest.raises(RunError, match=rf"{name}: cannot be written \(No space left on device\); free some space"):
        run(second, tmp_path, data_folder, silent)
    monkeypatch.undo()
    assert read_record(tmp_path / first["id"]) == first
    state = state_of(directory)
    assert state.state != "done"
    assert state.state != "running"
    if name == "checkpoint.pt":
        assert load_checkpoint(directory)["step"] == 2  # the one before
    assert run(second, tmp_path, data_folder, silent)["id"] == run_id(second)
    assert not [path.name for path in directory.glob(".*") if path.name != ".lock"]


def drrepro(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "drrepro", *arguments], capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture
def small_disk(environment, monkeypatch):
    """A file system with room for one checkpoint, but not for two."""
    environment.mkdir()
    size = "size=8m"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", environment], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield environment
    subprocess.run(["umount", environment], check=True)


def test_a_disk_that_is_really_full_ends_a_training_and_a_sweep_in_words(small_disk):
    (small_disk / "filling").write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096 - 300_000))
    trained = drrepro("train", "--quiet", *SMALL)
    assert trained.returncode == 1
    assert "checkpoint.pt: cannot be written (No space left on device); free some space" in trained.stderr
    assert trained.stderr.count("\n") == 1
    swept = drrepro("sweep", "grid", "--json", "--quiet", "--retry-failed", *SMALL)
    assert swept.returncode == 1
    [outcome] = json.loads(swept.stdout)
    assert outcome["state"] == "failed"
    assert "cannot be written (No space left on device)" in outcome["why"]
    (small_disk / "filling").unlink()


def test_a_folder_that_cannot_be_written_is_one_line_and_exit_code_1(environment, monkeypatch):
    environment.mkdir()
    (environment / "file").touch()
    monkeypatch.setenv("DRREPRO_RUNS", str(environment / "file" / "runs"))
    for command in (["train"], ["sweep", "grid"]):
        result = drrepro(*command, "--quiet", *SMALL)
        assert result.returncode == 1, result.stderr
        assert "cannot be written (Not a directory)" in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_clock_that_goes_back_changes_nothing(data_folder, tmp_path, monkeypatch):
    config = compose(SMALL)
    whole = run(config, tmp_path / "a", data_folder, silent)
    directory = tmp_path / "b" / run_id(config)

    def stop(stage, done, total, numbers):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "b", data_folder, stop)
    ahead = time.time() + 10 * 365 * 86400
    for path in [*directory.iterdir(), directory]:
        os.utime(path, (ahead, ahead))
    [state] = all_states(tmp_path / "b")
    assert (state.state, state.age_seconds) == ("interrupted", 0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    resumed = run(config, tmp_path / "b", data_folder, silent)
    assert resumed["metrics"] == whole["metrics"]
    [state] = all_states(tmp_path / "b")
    assert (state.state, state.age_seconds) == ("done", 0)
