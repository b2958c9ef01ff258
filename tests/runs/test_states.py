import json

import pytest
from typer.testing import CliRunner

from drrepro.cli import app
from drrepro.config import compose, run_id, to_dict
from drrepro.errors import RunError, UsageError
from drrepro.experiments.run import run
from drrepro.files import write_text
from drrepro.progress import silent
from drrepro.runs.states import state_of, write_error
from tests.conftest import DIVERGING, TINY
from tests.processes import start, until

SMALL = [*TINY, "schedule.precision=fp32", "evaluation.score_thresholds=[0.05]"]


def invoke(*arguments):
    return json.loads(CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout)


def interrupt(stage, done, total, numbers):
    if stage == "train" and done == 3:
        raise KeyboardInterrupt


@pytest.fixture
def runs(environment, data_folder):
    """A run in each state, and the process of the one that runs."""
    from omegaconf import OmegaConf

    configs = {
        name: compose([*SMALL, f"seed={seed}"])
        for seed, name in enumerate(("new", "running", "interrupted", "killed", "done"))
    }
    configs["running"] = compose([*SMALL, "schedule.steps=100000"])
    configs["failed"] = compose(DIVERGING)
    names = {name: run_id(config) for name, config in configs.items()}
    write_text(environment / names["new"] / "config.yaml", OmegaConf.to_yaml(to_dict(configs["new"])))
    with pytest.raises(KeyboardInterrupt):
        run(configs["interrupted"], environment, data_folder, interrupt)
    with pytest.raises(RunError):
        run(configs["failed"], environment, data_folder, silent)
    run(configs["done"], environment, data_folder, silent)
    killed = start(configs["killed"], environment, data_folder, pause=60)
    until((environment / names["killed"] / "pids").is_file)
    killed.kill()
    killed.join()
    running = start(configs["running"], environment, data_folder, pause=0.2)
    until(lambda: state_of(environment / names["running"]).done)
    yield names
    running.kill()
    running.join()


def test_every_state_is_told_and_what_runs_is_not_removed(runs, environment):
    rows = {row["run_id"]: row for row in invoke("runs", "list")}
    found = {name: (rows[runs[name]]["state"], rows[runs[name]]["why"]) for name in runs}
    why = found.pop("failed")[1]
    assert "the loss is not finite" in why
    assert found == {
        "new": ("new", ""),
        "running": ("running", ""),
        "interrupted": ("interrupted", "interrupted"),
        "killed": ("interrupted", "killed"),
        "done": ("done", ""),
    }
    running = invoke("runs", "show", runs["running"])
    assert (running["stage"], running["total"]) == ("train", 100000)
    assert running["done"] >= 1
    note = json.loads((environment / runs["running"] / "owner.json").read_text())
    assert running["where"] == f"{note['host']}, process {note['pid']}"
    done = invoke("runs", "show", runs["done"])
    assert done["record"]["id"] == runs["done"]
    assert done["AP"] == done["record"]["metrics"][0]["AP"]
    text = CliRunner().invoke(app, ["runs", "list"], catch_exceptions=False).stdout
    assert all(name in text for name in runs.values())
    with pytest.raises(UsageError, match=r"being carried out by .*; stop it first"):
        CliRunner().invoke(app, ["runs", "rm", runs["running"], "--yes"], catch_exceptions=False)
    removed = [runs["failed"], runs["killed"]]
    assert invoke("runs", "rm", *removed, "--yes") == removed
    assert {row["run_id"] for row in invoke("runs", "list")} == {*runs.values()} - {*removed}


def test_a_damaged_record_hides_no_other_run(environment, data_folder):
    record = run(compose(SMALL), environment, data_folder, silent)
    other = environment / "other"
    write_text(other / "config.yaml", "")
    write_text(other / "record.json", '{"schema": 99}')
    states = {row["run_id"]: (row["state"], row["why"]) for row in invoke("runs", "list")}
    assert states[record["id"]] == ("done", "")
    assert states["other"][0] == "failed"
    assert "written by another version of drrepro" in states["other"][1]


def test_the_rank_that_failed_first_names_the_cause(tmp_path):
    write_error(tmp_path, RunError("the disk is full"))
    write_error(tmp_path, RuntimeError("connection closed by peer"))
    write_error(tmp_path, KeyboardInterrupt())
    assert (state_of(tmp_path).state, state_of(tmp_path).why) == ("failed", "the disk is full")


def test_names_that_lead_elsewhere_are_refused(environment, tmp_path):
    (tmp_path / "config.yaml").touch()
    environment.mkdir()
    for name in ("..", ".", "", "../x", str(tmp_path)):
        with pytest.raises(UsageError, match="no run here"):
            CliRunner().invoke(app, ["runs", "rm", "--yes", "--", name], catch_exceptions=False)
    assert (tmp_path / "config.yaml").is_file()
