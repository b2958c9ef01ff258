import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from drrepro.cli import app
from drrepro.config import compose
from drrepro.data.dataset import Dataset
from drrepro.errors import UsageError
from drrepro.experiments import forecast as module
from drrepro.experiments import probe as probing
from drrepro.experiments.forecast import _between, _training_seconds, forecast
from drrepro.experiments.probe import Probe
from tests.conftest import TINY

PROBE = Probe(scale=128, read=0.5, train=2.0, update=0.25, evaluate=1.0, parameters=1000, scatter=1.0)


def costs(configs, tmp_path, data_folder, jobs=1):
    return forecast(configs, tmp_path / "runs", data_folder, jobs, lambda done, total: None)


@pytest.fixture
def probed(monkeypatch):
    """The scales that were probed, and with how many threads; every image takes as long as it has thousand pixels."""
    seen = []

    def probe(config, trained, tested, device):
        seen.append((config.input.scale, torch.get_num_threads()))
        return replace(PROBE, scale=config.input.scale, train=config.input.scale**2 / 1000)

    monkeypatch.setattr(module, "probe", probe)
    return seen


def test_scales_between_follow_by_their_pixels(probed, tmp_path, data_folder, monkeypatch):
    configs = [compose([*TINY, f"input.scale={scale}"]) for scale in (64, 128, 96)]
    small, large, between = (cost.seconds for cost in costs(configs, tmp_path, data_folder).costs)
    assert [scale for scale, _ in probed] == [64, 128]
    assert between - small == pytest.approx((large - small) * (96**2 - 64**2) / (128**2 - 64**2))
    assert _between(PROBE, PROBE, 128) == PROBE


def test_a_probe_has_the_threads_of_a_run(probed, tmp_path, data_folder, monkeypatch):
    monkeypatch.setattr("drrepro.experiments.launchers.cores", lambda: 4)
    before = torch.get_num_threads()
    configs = [compose([*TINY, "launcher.cpus=null", f"seed={seed}"]) for seed in range(2)]
    for jobs, threads in ((1, 4), (2, 2), (8, 2)):  # more jobs than runs are no use
        assert costs(configs, tmp_path, data_folder, jobs).threads == threads
        assert probed[-1][1] == threads
    costs([compose([*TINY, "launcher.cpus=3"])], tmp_path, data_folder)
    assert probed[-1][1] == 3
    assert torch.get_num_threads() == before


def test_images_are_read_once_where_they_are_kept(data_folder):
    config = compose([*TINY, "schedule.images_per_step=8", "schedule.steps=10"])
    eight = Dataset(["a"], [1], [None] * 8)
    work = 80 * PROBE.train + 10 * PROBE.update
    assert _training_seconds(config, PROBE, 10, eight) == pytest.approx(work + 8 * PROBE.read)
    many = Dataset(["a"], [1], [None] * 1000)  # less than an epoch
    assert _training_seconds(config, PROBE, 10, many) == pytest.approx(work + 80 * PROBE.read)
    config.runtime.workers = 2
    assert _training_seconds(config, PROBE, 10, eight) == work  # read meanwhile
    slow = replace(PROBE, read=100.0)
    assert _training_seconds(config, slow, 10, eight) == pytest.approx(80 * 100 / 2)


def test_the_fastest_repeat_counts_and_the_scatter_is_known(monkeypatch):
    ticks = iter([0, 90, 100, 101, 200, 202, 300, 304])  # a first call that warms up; then 1, 2 and 4 s
    monkeypatch.setattr(probing.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(probing, "REPEATS", 3)
    monkeypatch.setattr(probing, "ENOUGH_SECONDS", 1000)
    assert probing._seconds(lambda: None, torch.device("cpu")) == (1, 2)


@pytest.mark.parametrize("here", [True, False])
def test_the_probe_is_of_real_images_or_of_noise(here, data_folder, tmp_path):
    overrides = TINY if here else [*TINY, "data=coco2017", "model=small", "input=cpu", "input.scale=64"]
    (cost,) = costs([compose(overrides)], tmp_path, data_folder).costs
    assert cost.seconds > 0
    assert (cost.state, cost.steps) == ("new", 4)
    assert cost.images_tested == (8 if here else 5_000)


def test_data_that_could_be_here_and_are_not_are_an_error(tmp_path):
    with pytest.raises(UsageError, match="drrepro data make"):
        costs([compose(TINY)], tmp_path, tmp_path)


def test_repeats_that_scatter_are_said(environment, probed, monkeypatch):
    quiet = CliRunner().invoke(app, ["train", "--dry-run", *TINY])
    assert "scatter" not in quiet.stderr
    original = module.probe
    monkeypatch.setattr(module, "probe", lambda *given: replace(original(*given), scatter=1.8))
    loud = CliRunner().invoke(app, ["train", "--dry-run", *TINY])
    assert "the repeats scatter by a factor of 1.8: something else uses this machine" in loud.stderr
    rows = json.loads(CliRunner().invoke(app, ["train", "--dry-run", "--json", "--quiet", *TINY]).stdout)
    assert rows[0].keys() == {
        *("run_id", "state", "steps", "images_trained", "images_tested", "seconds", "disk_mb"),
    }
