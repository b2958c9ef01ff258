"""The commands that the report prints make the very runs."""

import shlex

import pytest

from drrepro.config import compose, run_id, to_dict
from drrepro.report.repeat import run_command, sweep_command
from drrepro.studies import planning


def overrides_of(command, name):
    program, *words = shlex.split(command)
    assert program == "drrepro"
    assert words[: len(name.split())] == name.split()
    return words[len(name.split()) :]


def plain(configs):
    return [to_dict(config) for config in configs]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "drrepro train data=digits loss=dr seed=0"),
        (["loss=focal", "seed=3", "input.scale=64"], "drrepro train data=digits loss=focal input.scale=64 seed=3"),
        (["data=letters", "schedule.clip_norm=null", "evaluation.score_thresholds=[0.05,0.5]"], None),
        (["data=voc_custom", "data.root=/tmp/some folder", "data.classes=[a b,'c:d']"], None),
        (["data=coco2017", "schedule.images_per_step=8", "schedule.lr=0.02", "model=resnet18"], None),
        (["experiment=table3", "loss=focal"], None),
        (["loss=dr", "loss_only=true", "loss.h=2.5"], None),
    ],
)
def test_the_command_of_a_run_makes_that_run(given, said):
    config = compose(given)
    command = run_command(to_dict(config))
    assert said in (None, command)
    assert run_id(compose(overrides_of(command, "train"))) == run_id(config)


def test_what_options_of_ones_own_folder_made_has_no_command(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("# @package _global_\ndata:\n  name: mine\n  format: coco\n")
    assert run_command(to_dict(compose(["data=mine"], tmp_path))) is None


@pytest.mark.parametrize(
    ("build", "given"),
    [
        ("thresholds", ["seed=0,1", "schedule.steps=7"]),
        ("scales", ["seed=2", "data=letters"]),
        ("scales", ["input.scale=64"]),
        ("datasets", []),
    ],
)
def test_the_command_of_a_table_makes_its_runs(build, given):
    planned, configs = planning.plan_study(build, given)
    said = sweep_command(planned, plain(configs))
    assert said == sweep_command(planned, plain(configs[:1]))  # of a sweep that was stopped
    again, _ = planning.plan_study(build, overrides_of(said, f"sweep {planned.name}"))
    assert {cell.run_id for cell in again.points} == {cell.run_id for cell in planned.points}


def test_runs_that_no_one_command_makes_have_none():
    planned, configs = planning.plan_study("thresholds", ["loss=dr"])
    assert sweep_command(planned, plain(configs)) is None  # a sweep takes both
    planned, configs = planning.plan_study("thresholds", [])
    configs[0].schedule.steps = 7
    assert sweep_command(planned, plain(configs)) is None
    assert sweep_command(planned, []) is None
