from types import SimpleNamespace

import pytest

from drrepro.experiments import launchers
from drrepro.experiments.launchers import Local
from drrepro.experiments.sweep import _busy
from drrepro.runs.lock import hold
from drrepro.runs.states import SCORING, write_status
from drrepro.schema import LauncherConfig


@pytest.fixture
def processes(monkeypatch):
    """What would have been started, with the GPUs given."""
    started = []

    def fork(command):
        process = SimpleNamespace(exitcode=None, terminate=lambda: None, gpus=command.gpus)
        started.append(process)
        return process

    monkeypatch.setattr(launchers.Command, "fork", fork)
    return started


@pytest.mark.parametrize(("gpus", "ranks", "busy"), [(["0"], 1, 0), (["0"], 2, 1), ([], 1, 1)])
def test_a_run_that_only_scores_leaves_its_gpu_to_the_next(gpus, ranks, busy, processes, tmp_path, monkeypatch):
    monkeypatch.setattr(launchers, "_visible_gpus", lambda: gpus)
    local = Local(LauncherConfig(ranks=ranks), jobs=1)
    running = {"a": local.start([], tmp_path / "a")}
    with hold(tmp_path / "a"):
        write_status(tmp_path / "a", {"state": "running", "stage": "evaluate"})
        assert _busy(running, tmp_path) == 1
        write_status(tmp_path / "a", {"state": "running", "stage": SCORING})
        assert _busy(running, tmp_path) == busy
    if busy:
        return
    running["b"] = local.start([], tmp_path / "b")
    assert [process.gpus for process in processes] == ["0", "0"]
    processes[0].exitcode = 0
    assert running["a"].exit_code() == 0
    assert local.free == []  # its slot is the other's now
    processes[1].exitcode = 0
    assert running["b"].exit_code() == 0
    assert local.free == [0]
