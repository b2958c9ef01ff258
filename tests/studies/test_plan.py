import pytest

from drrepro.config import compose, run_id
from drrepro.errors import UsageError
from drrepro.studies import plan, planning


def test_thresholds_take_two_runs_and_scales_ten_of_which_two_are_shared():
    one, first = planning.plan_study("thresholds", ["data=digits"])
    two, second = planning.plan_study("scales", ["data=digits"])
    assert [c.arm for c in one.points] == ["focal", "dr"]
    assert len(two.points) == 10
    assert {run_id(c) for c in first} <= {run_id(c) for c in second}
    assert [(c.setting, c.value) for c in two.points if c.arm == "dr"] == [
        ("400", 64),
        ("500", 80),
        ("600", 96),
        ("700", 112),
        ("800", 128),
    ]


def test_datasets_are_letters_unless_said_otherwise_and_keep_the_loss_parameters():
    letters, configs = planning.plan_study("datasets", [])
    assert letters.data == "letters"
    assert [c.setting for c in letters.points] == ["voc2007", "voc2007"]
    assert configs[1].loss == compose(["data=digits"]).loss
    assert planning.plan_study("datasets", ["data=digits"])[0].data == "digits"


def test_seeds_multiply_and_a_grid_takes_any_axis():
    assert len(planning.plan_study("thresholds", ["seed=0,1,2"])[0].points) == 6
    grid, configs = planning.grid(["loss=dr,focal", "loss.h=2.5,3.5", "seed=0,1", "schedule.steps=7"])
    assert len(configs) == 6
    assert grid.points[0].axes == {"loss": "dr", "loss.h": "2.5", "seed": "0"}
    assert grid.points[-1].axes == {"loss": "focal", "seed": "1"}  # which has no h
    assert {c.loss.h for c in configs if c.loss.name == "dr"} == {2.5, 3.5}


def test_a_parameter_of_one_loss_leaves_the_other_alone():
    _, configs = planning.plan_study("thresholds", ["loss.tau=2"])
    assert [(c.loss.name, getattr(c.loss, "tau", None)) for c in configs] == [("focal", None), ("dr", 2)]
    assert run_id(configs[0]) == run_id(compose(["loss=focal"]))
    with pytest.raises(UsageError, match=r"loss\.hh: no such key"):
        planning.plan_study("thresholds", ["loss.hh=2"])


def test_one_sweep_takes_one_data_set():
    with pytest.raises(UsageError, match="one sweep takes one data set, not digits, letters"):
        planning.grid(["data=digits,letters"])


def test_a_table_averages_nothing_but_seeds():
    for override in ("loss.h=2.5,3.5", "data=digits,letters"):
        with pytest.raises(UsageError, match="a table takes one value of it; `drrepro sweep grid` takes several"):
            planning.plan_study("thresholds", [override])
    with pytest.raises(UsageError, match=r"input\.scale: a table takes one value"):
        planning.plan_study("thresholds", ["input.scale=64,128"])


def test_plans_come_back_and_damaged_ones_are_named(tmp_path):
    kept, _ = planning.plan_study("scales", [])
    plan.save_plan(kept, tmp_path)
    assert plan.load_plans(tmp_path) == [kept]
    (tmp_path / "plans" / "scales-digits.json").write_text('{"kind": 1}')
    with pytest.raises(UsageError, match=r"scales-digits\.json: not a plan of this version"):
        plan.load_plans(tmp_path)


def test_nms_adds_one_evaluation_a_run():
    _, configs = planning.plan_study("thresholds", [])
    added, evaluations = planning.nms(configs, [0.4, 0.6])
    assert [c.weights for c in evaluations] == [f"run:{run_id(c)}" for c in configs]
    assert all(c.evaluation.nms_ious == [0.4, 0.6] for c in evaluations)
    assert not {c.run_id for c in added.points} & {run_id(c) for c in configs}


def test_an_experiment_brings_its_own_data():
    table3, configs = planning.plan_study("datasets", ["experiment=table3"])
    assert {config.data.name for config in configs} == {"voc2007"}
    assert {(config.schedule.lr, config.schedule.steps, config.input.scale) for config in configs} == {
        (0.008, 8750, 800)
    }
    assert table3.points[0].setting == "voc2007"
    with pytest.raises(UsageError, match="experiment: one table's"):
        planning.everything(["experiment=table1"])
