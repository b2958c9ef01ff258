"""A training that is killed and goes on ends as if it had not been."""

import json
import random
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from drrepro.config import compose, run_id
from drrepro.experiments.run import run
from drrepro.progress import silent
from drrepro.runs.records import read_record
from drrepro.training.checkpoint import load_checkpoint
from tests.conftest import TINY
from tests.processes import kill_at_a_random_moment, kill_inside_a_write, start

EXACT = [*TINY, "schedule.precision=fp32", "evaluation.score_thresholds=[0.05]"]


def results(directory):
    """Return what must not depend on interruptions: record, weights, and the log but for its speed."""
    record = read_record(directory)
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    logged = [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]
    return {key: record[key] for key in ("metrics", "curve", "densities", "data")}, logged


def assert_equal_runs(directory, other):
    assert results(directory) == results(other)
    weights, others = (load_checkpoint(folder)["model"] for folder in (directory, other))
    assert weights.keys() == others.keys()
    for key, value in weights.items():
        assert torch.equal(value, others[key]), key


def assert_nothing_is_partial(directory):
    """Whatever has a name that is ever read is whole, and the temporary files of killed writers do not pile up."""
    for path in directory.glob("[!.]*"):
        if path.suffix in (".pt", ".npz"):
            assert ZipFile(path).testzip() is None
        elif path.suffix == ".json":
            json.loads(path.read_text())
    assert len(list(directory.glob(".checkpoint.pt.*"))) <= 1


def test_a_training_killed_between_steps_and_inside_a_write_ends_bit_identical(data_folder, tmp_path, caplog):
    config = compose([*EXACT, "schedule.steps=12"])
    directory, chance = tmp_path / "b" / run_id(config), random.Random(0)
    run(config, tmp_path / "a", data_folder, silent)
    for inside in (True, False, True):
        process = start(config, tmp_path / "b", data_folder, slow=True)
        if inside:
            assert kill_inside_a_write(process, directory, 2)
            assert len(list(directory.glob(".checkpoint.pt.*"))) == 1
        else:
            assert kill_at_a_random_moment(process, directory, chance)
        assert_nothing_is_partial(directory)
    run(config, tmp_path / "b", data_folder, silent)
    assert_equal_runs(tmp_path / "a" / run_id(config), directory)
    assert "not a readable checkpoint" not in caplog.text
    assert caplog.text.count("taken over from process") == 1  # of the last one killed; the others said it elsewhere
    assert not list(directory.glob(".checkpoint*"))


@pytest.mark.long
def test_a_training_killed_at_20_random_moments_ends_bit_identical(environment, tmp_path):
    overrides = [*EXACT, "schedule.steps=100"]
    config, chance = compose(overrides), random.Random(1)
    directory = environment / run_id(config)
    (tmp_path / "sitecustomize.py").write_text(
        "import tempfile\nfrom tests.processes import write_slowly\n"
        "tempfile._TemporaryFileWrapper.write = write_slowly\n"
    )
    repository = Path(__file__).parents[2]
    said = []

    class Training:
        """`drrepro train` with slow writes."""

        def __init__(self):
            launch = "import sitecustomize, drrepro.__main__ as program; program.main()"
            self.process = subprocess.Popen(
                [sys.executable, "-c", launch, "train", "--quiet", *overrides],
                env={**_environment(), "PYTHONPATH": f"{tmp_path}:{repository}"},
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )

        def is_alive(self):
            return self.process.poll() is None

        def kill(self):
            self.process.kill()

        def join(self):
            said.append(self.process.communicate()[1])

    for number in range(20):
        training = Training()
        if number % 2:
            assert kill_inside_a_write(training, directory, chance.randint(1, 3))
        else:
            assert kill_at_a_random_moment(training, directory, chance)
        assert_nothing_is_partial(directory)
    last = Training()
    last.join()
    assert last.process.returncode == 0, said[-1]
    assert not any("not a readable checkpoint" in text for text in said)
    assert all("taken over from process" in text for text in said[1:])
    run(config, tmp_path / "whole", Path(_environment()["DRREPRO_DATA"]), silent)
    assert_equal_runs(tmp_path / "whole" / run_id(config), directory)


def _environment():
    import os

    return dict(os.environ)
