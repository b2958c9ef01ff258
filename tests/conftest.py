"""Fixtures: tiny embedded sets, made once, and real data where it lies beside the checkout."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from drrepro.data.embedded import make_embedded

SHARED = Path(__file__).parents[2] / "shared" / "data"
TINY = [
    "schedule.steps=4",
    "schedule.warmup_steps=1",
    "runtime.log_every=1",
    "runtime.checkpoint_every=2",
    "input.scale=64",
    "launcher.cpus=1",  # tests run beside each other: threads that share a core wait for each other
]

DIVERGING = [*TINY, "schedule.steps=40", "schedule.lr=1e30", "schedule.clip_norm=null", "schedule.warmup_steps=0"]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True, scope="session")
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests from what a user has beside the tracked files of the checkout: data, runs, results."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(tmp_path_factory.mktemp("elsewhere"), monkeypatch)
        yield


@pytest.fixture(autouse=True)
def _isolated(_elsewhere: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests from each other."""
    isolate(tmp_path, monkeypatch)


def isolate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in ``folder``; data and runs are folders in it that do not exist yet."""
    monkeypatch.setenv("DRREPRO_DATA", str(folder / "data"))
    monkeypatch.setenv("DRREPRO_RUNS", str(folder / "runs"))
    monkeypatch.chdir(folder)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both embedded sets with eight images a split."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("digits", "letters"):
        make_embedded(name, folder, lambda done, total: None, limit=8)
    return folder


@pytest.fixture
def environment(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the command line to the tiny data; return its runs folder."""
    monkeypatch.setenv("DRREPRO_DATA", str(data_folder))
    return tmp_path / "runs"


def shared(name: str) -> Path:
    """Return a folder of real data, or skip."""
    path = SHARED / name
    if not path.is_dir():
        pytest.skip(f"{path} is not here")
    return path
