"""Sweeps that are killed, stopped, started twice, or carried out by another engine."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from drrepro.config import compose, run_id, to_dict
from drrepro.experiments.launchers import build_launcher
from drrepro.experiments.run import run
from drrepro.experiments.sweep import sweep
from drrepro.files import write_text
from drrepro.progress import silent
from drrepro.runs.lock import owner
from drrepro.runs.records import read_record
from drrepro.runs.states import state_of
from drrepro.training.checkpoint import load_checkpoint
from tests.conftest import DIVERGING, TINY
from tests.processes import start, until

SMALL = [*TINY, "schedule.precision=fp32", "evaluation.score_thresholds=[0.05]"]
ENDLESS = [*SMALL, "schedule.steps=100000", "runtime.checkpoint_every=1000000"]


def measured(record):
    return {key: record[key] for key in ("id", "metrics", "curve", "densities", "data", "submission")}


def test_two_processes_with_the_same_run_train_it_once(data_folder, tmp_path):
    config = compose(SMALL)
    processes = [start(config, tmp_path, data_folder, pause=0.2) for _ in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    lines = (tmp_path / run_id(config) / "pids").read_text().splitlines()
    assert len(lines) == 4
    assert len({line.split()[0] for line in lines}) == 1
    assert read_record(tmp_path / run_id(config)) is not None


def test_a_failure_stops_nothing_and_is_not_repeated_unless_asked_for(data_folder, tmp_path):
    broken, good = compose(DIVERGING), compose([*SMALL, "seed=1"])
    outcomes = {o.run_id: o for o in sweep([broken, good], tmp_path, data_folder, 1, silent)}
    assert outcomes[run_id(good)].state == "done"
    failed = outcomes[run_id(broken)]
    assert failed.state == "failed"
    assert "the loss is not finite" in failed.why
    assert failed.log == str(tmp_path / run_id(broken) / "log.txt")
    log = (tmp_path / run_id(broken) / "log.txt").read_text()
    assert log.count("the loss is not finite") == 1
    [again] = sweep([broken], tmp_path, data_folder, 1, silent)
    assert again.why.endswith("(before; --retry-failed runs it again)")
    assert (tmp_path / run_id(broken) / "log.txt").read_text() == log
    [retried] = sweep([broken], tmp_path, data_folder, 1, silent, retry_failed=True)
    assert retried == failed
    assert (tmp_path / run_id(broken) / "log.txt").read_text().count("the loss is not finite") == 2


def test_fail_fast_stops_the_rest_where_it_can_be_gone_on_from(data_folder, tmp_path):
    endless, broken = compose(ENDLESS), compose([*DIVERGING, "schedule.lr=1e20"])
    later = compose([*SMALL, "seed=1"])
    outcomes = sweep([later, broken, endless], tmp_path, data_folder, 2, silent, fail_fast=True)
    assert {o.run_id: o.state for o in outcomes} == {
        run_id(broken): "failed",
        run_id(endless): "stopped",
        run_id(later): "stopped",
    }
    assert state_of(tmp_path / run_id(endless)).state in ("interrupted", "new")  # new: stopped before it began
    assert state_of(tmp_path / run_id(later)).state == "new"


def test_a_job_that_is_killed_is_told_from_one_that_failed_and_goes_on(data_folder, tmp_path):
    config = compose([*SMALL, "schedule.steps=60"])
    directory, killed = tmp_path / run_id(config), []

    def kill(name, done, total, numbers):
        if not killed and (directory / "checkpoint.pt").is_file():
            killed.append(json.loads((directory / "owner.json").read_text())["pid"])
            os.kill(killed[0], signal.SIGKILL)

    [outcome] = sweep([config], tmp_path, data_folder, 1, kill)
    assert killed
    assert (outcome.state, outcome.why[:17]) == ("failed", "killed (exit code")
    assert (state_of(directory).state, state_of(directory).why) == ("interrupted", "killed")
    [outcome] = sweep([config], tmp_path, data_folder, 1, silent)
    assert outcome.state == "done"


def test_what_jobs_are_forked_from_outlives_a_signal_to_all_processes_of_the_sweep(data_folder, tmp_path):
    config = compose([*SMALL, "schedule.steps=40"])
    directory, signalled = tmp_path / run_id(config), []

    def signal_the_server(name, done, total, numbers):
        if not signalled and (directory / "checkpoint.pt").is_file():
            job = json.loads((directory / "owner.json").read_text())["pid"]
            signalled.append(int(Path(f"/proc/{job}/stat").read_text().rsplit(")", 1)[1].split()[1]))
            assert os.getpgid(signalled[0]) != os.getpgid(0)
            os.kill(signalled[0], signal.SIGTERM)

    [outcome] = sweep([config], tmp_path, data_folder, 1, signal_the_server)
    assert signalled
    assert outcome.state == "done"


def test_what_another_process_is_at_is_left_to_it(data_folder, tmp_path):
    config, other = compose(SMALL), compose([*SMALL, "seed=1"])
    process = start(config, tmp_path, data_folder, pause=0.5)
    until(lambda: state_of(tmp_path / run_id(config)).state == "running")
    outcomes = sweep([config, other], tmp_path, data_folder, 1, silent)
    process.join()
    assert {o.state for o in outcomes} == {"done"}
    assert not (tmp_path / run_id(config) / "log.txt").exists()  # no job of this sweep


def test_a_failure_of_another_process_is_not_repeated(data_folder, tmp_path):
    config = compose([*DIVERGING, "schedule.lr=1e20"])
    process = start(config, tmp_path, data_folder, pause=0.5)
    until(lambda: state_of(tmp_path / run_id(config)).state == "running")
    [outcome] = sweep([config], tmp_path, data_folder, 1, silent)
    process.join()
    assert outcome.state == "failed"
    assert "not finite" in outcome.why
    assert not (tmp_path / run_id(config) / "log.txt").exists()


def command(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "drrepro", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


SEEDS = ["seed=0,1,2", "loss=dr,focal", *SMALL]


@pytest.mark.long
def test_two_sweeps_at_once_carry_out_each_run_once(environment):
    sweeps = [command("sweep", "grid", "--json", "--quiet", "--jobs", "1", *SEEDS) for _ in range(2)]
    outcomes = []
    for process in sweeps:
        out, err = process.communicate()
        assert process.returncode == 0, err
        outcomes.append({outcome["run_id"]: outcome["state"] for outcome in json.loads(out)})
    assert len(outcomes[0]) == 6
    assert all(set(states.values()) <= {"done", "skipped"} for states in outcomes)
    for name in outcomes[0]:
        record = read_record(environment / name)
        assert record["id"] == name
        log = (environment / name / "log.txt").read_text()
        assert log.count("train 4/4") == 1
        lines = [json.loads(line) for line in (environment / name / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [1, 2, 3, 4]


def swept(environment, monkeypatch, folder, *launcher):
    """Return what a sweep of two runs has measured, by run."""
    monkeypatch.setenv("DRREPRO_RUNS", str(environment / folder))
    process = command("sweep", "grid", "--json", "--quiet", "seed=0,1", *SMALL, *launcher)
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    names = [outcome["run_id"] for outcome in json.loads(out)]
    assert len(names) == 2
    return {name: measured(read_record(environment / folder / name)) for name in names}


@pytest.mark.long
def test_local_submitit_and_ray_measure_the_same(environment, monkeypatch):
    pytest.importorskip("submitit")
    pytest.importorskip("ray")
    local = swept(environment, monkeypatch, "local", "launcher.cpus=1")
    assert swept(environment, monkeypatch, "slurm", "launcher=slurm", "launcher.cluster=local") == local
    assert swept(environment, monkeypatch, "ray", "launcher=ray") == local


@pytest.mark.long
def test_two_ranks_in_a_sweep_measure_what_torchrun_does(environment, monkeypatch):
    """Two runs at a time, so that two torchruns share the machine."""
    pytest.importorskip("submitit")
    local = swept(environment, monkeypatch, "local", "launcher.ranks=2", "launcher.cpus=2", "--jobs", "2")
    slurm = ["launcher=slurm", "launcher.cluster=local", "launcher.ranks=2", "launcher.cpus=2"]
    assert swept(environment, monkeypatch, "slurm", *slurm) == local
    monkeypatch.setenv("DRREPRO_RUNS", str(environment / "plain"))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line = [sys.executable, *torchrun, "-m", "drrepro", "train", "--json", *SMALL]
    plain = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    assert measured(plain) == local[plain["id"]]


LAUNCHERS = {
    "local": ["launcher.cpus=1"],
    "ranks": ["launcher.ranks=2", "launcher.cpus=2"],
    "slurm": ["launcher=slurm", "launcher.cluster=local"],
    "ray": ["launcher=ray"],
}


@pytest.mark.long
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_that_is_stopped_leaves_checkpoints_and_no_process_and_goes_on(launcher, environment, monkeypatch):
    overrides = ["seed=0,1", *SMALL, "schedule.steps=2000", "runtime.checkpoint_every=1000000", *LAUNCHERS[launcher]]
    for module in {"slurm": ["submitit"], "ray": ["ray"]}.get(launcher, []):
        pytest.importorskip(module)
    names = [run_id(compose([*overrides[1:], f"seed={seed}"])) for seed in (0, 1)]
    process = command("sweep", "grid", "--quiet", "--jobs", "2", *overrides)
    logs = [environment / name / "metrics.jsonl" for name in names]
    until(lambda: all(log.is_file() and log.read_text().count("\n") >= 3 for log in logs))
    owners = [json.loads((environment / name / "owner.json").read_text())["pid"] for name in names]
    process.terminate()
    _, err = process.communicate()
    assert process.returncode == 130
    assert "interrupted; the same command goes on from the last checkpoint" in err
    for pid in owners:
        until(lambda pid=pid: not alive(pid), 10)
    for name in names:
        state = state_of(environment / name)
        assert (state.state, state.why) == ("interrupted", "interrupted")
        assert load_checkpoint(environment / name)["step"] >= 3


@pytest.mark.long
def test_a_job_that_slurm_preempts_is_queued_again_and_goes_on(environment, data_folder, tmp_path, monkeypatch):
    """With submitit's own executor, whose requeue starts the same job again."""
    pytest.importorskip("submitit")
    config = compose([*SMALL, "schedule.steps=40", "launcher=slurm", "launcher.cluster=local"])
    directory, jobs = environment / run_id(config), []
    launcher = build_launcher(config.launcher, 1, environment)
    submit = launcher.executor.submit
    monkeypatch.setattr(launcher.executor, "submit", lambda *given: jobs.append(submit(*given)) or jobs[-1])
    write_text(directory / "config.yaml", OmegaConf.to_yaml(to_dict(config)))
    handle = launcher.start([str(directory), str(data_folder)], directory)
    log = directory / "metrics.jsonl"
    until(lambda: log.is_file() and log.read_text().count("\n") >= 3)
    controller = jobs[0].job_id
    [task] = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    first = json.loads((directory / "owner.json").read_text())["pid"]
    os.kill(int(task), signal.SIGUSR2)
    until(lambda: (owner(directory) or {"pid": first})["pid"] != first)
    assert load_checkpoint(directory)["step"] >= 3
    until(lambda: handle.exit_code() is not None)
    assert handle.exit_code() == 0
    whole = run(config, tmp_path / "whole", data_folder, silent)
    assert measured(read_record(directory)) == measured(whole)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.long
def test_a_stopped_sweep_that_goes_on_ends_like_an_undisturbed_one(environment, data_folder, tmp_path):
    overrides = [*SMALL, "schedule.steps=40", "runtime.checkpoint_every=1000000", "launcher.cpus=1"]
    configs = [compose([*overrides, f"seed={seed}"]) for seed in (0, 1)]
    process = command("sweep", "grid", "--quiet", "seed=0,1", "--jobs", "2", *overrides)
    logs = [environment / run_id(config) / "metrics.jsonl" for config in configs]
    until(lambda: any(log.is_file() and log.read_text().count("\n") >= 3 for log in logs))
    process.terminate()
    process.communicate()
    assert process.returncode == 130
    process = command("sweep", "grid", "--json", "--quiet", "seed=0,1", "--jobs", "2", *overrides)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert len(json.loads(out)) == 2
    for config in configs:
        whole = run(config, tmp_path / "whole", data_folder, silent)
        assert measured(read_record(environment / run_id(config))) == measured(whole)
