"""What a yaml of a study must be."""

import pytest
import yaml

from drrepro.config import compose, run_id
from drrepro.errors import UsageError
from drrepro.report.checks import check_study
from drrepro.studies.plan import save_plan
from drrepro.studies.planning import plan_study
from drrepro.studies.study import PAPER, from_dict, load_study, study_names

FOCAL = {"name": "focal loss", "overrides": ["loss=focal"]}
MINE = {
    "what": "a width",
    "head": "width",
    "axis": "model.fpn_channels",
    "settings": {"16": 16, "32": 32},
    "arms": {"focal": FOCAL},
    "baseline": "focal",
    "metrics": ["AP", "AP50"],
    "published": {"data": "coco2017", "of": "COCO", "numbers": {"16": {"focal": {"AP": 36.1}}}},
}


def write(folder, content, name="mine"):
    (folder / "study").mkdir(exist_ok=True)
    (folder / "study" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_the_papers_studies_come_first_and_ones_own_are_found(tmp_path):
    write(tmp_path, MINE)
    assert study_names(tmp_path)[: len(PAPER)] == list(PAPER)
    mine = load_study("mine", tmp_path)
    assert (mine.title, mine.stem, mine.candidates) == ("mine", "mine", [])
    assert mine.published_at("16", "focal", "AP") == pytest.approx(0.361)
    assert from_dict(mine.as_dict()) == mine  # as a plan keeps it
    with pytest.raises(UsageError, match=r"study min: not known; choose from thresholds, scales, datasets, .*mine"):
        load_study("min", tmp_path)


@pytest.mark.parametrize("name", study_names())
def test_every_study_that_is_shipped_plans_runs(name):
    planned, configs = plan_study(name, ["seed=0,1"])
    assert {point.seed for point in planned.points} == {0, 1}
    assert set(planned.run_ids) <= {run_id(config) for config in configs}
    assert from_dict(planned.study.as_dict()) == planned.study


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {400: 0.5}}, r"settings\.400: put it in quotes"),
        ({"settings": {}}, "settings: needs one at least"),
        ({"settings": ["16"], "unit": "px"}, "unit: needs settings with a fraction each"),
        ({"arms": {"focal": {"name": "focal loss"}}}, "arms.focal lacks overrides"),
        ({"arms": {"focal": {**FOCAL, "at": {"8": ["seed=1"]}}}}, "arms.focal.at: 8 is none of settings"),
        ({"baseline": "dr"}, "baseline dr is none of arms"),
        ({"metrics": []}, "metrics: needs one at least"),
        ({"metrics": ["AP at low"]}, "metrics: AP at low: needs a score threshold after at"),
        ({"number": 1}, "number: only the paper's own tables have one"),
        ({"colour": "red"}, "the study has no colour"),
        ({"axis": "evaluation.score_threshold", "settings": ["0.1"]}, "needs two score thresholds at least"),
        ({"axis": "evaluation.score_threshold", "settings": ["low", "high"]}, "could not convert"),
        ({"published": {"data": "a", "of": "b", "numbers": {"16": {"focal": [1, 2, 3]}}}}, "3 numbers of 2 metrics"),
        ({"what": None}, "what is no str"),
    ],
)
def test_what_is_wrong_with_a_yaml_is_said_in_a_line(change, message, tmp_path):
    with pytest.raises(UsageError, match=f"mine.yaml: not a study .*{message}") as caught:
        load_study("mine", write(tmp_path, {**MINE, **change}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "a", "[1]", "a: [", "{a: &a [*a]}"])
def test_what_is_no_yaml_of_a_study_is_said(text, tmp_path):
    write(tmp_path, MINE)
    (tmp_path / "study" / "mine.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"mine\.yaml: not a study"):
        load_study("mine", tmp_path)


def test_names_that_no_file_can_have_are_refused(tmp_path):
    with pytest.raises(UsageError, match="takes letters, digits"):
        load_study("my study", write(tmp_path, MINE, "my study"))
    mine, _ = plan_study("mine", [], write(tmp_path, {**MINE, "name": "../../x"}))
    assert mine.name == "mine"
    with pytest.raises(UsageError, match="'my table' is no name"):
        save_plan(type(mine)("my table", None, "digits", None, []), tmp_path)


def test_an_axis_without_sense_is_said(tmp_path):
    text = {**MINE, "axis": "model.backbone", "unit": "px", "settings": {"a": 0.5}}
    with pytest.raises(UsageError, match=r"axis model\.backbone: 'small' has no fractions"):
        plan_study("mine", [], write(tmp_path, text))
    with pytest.raises(UsageError, match=r"axis model\.depth: no such key"):
        plan_study("mine", [], write(tmp_path, {**text, "axis": "model.depth"}))


def test_a_run_may_stand_in_several_rows(tmp_path):
    mine, configs = plan_study("mine", [], write(tmp_path, {**MINE, "settings": {"16": 16, "the same": 16}}))
    assert [point.setting for point in mine.points] == ["16", "the same"]
    assert len(configs) == len(mine.run_ids) == 1


def test_changes_of_evaluation_keys_alone_need_no_training():
    plan, configs = plan_study("attribution", ["seed=0"])
    trained = [config for config in configs if config.schedule.steps]
    assert len(trained) == 6
    assert {c.weights for c in configs if not c.schedule.steps} <= {f"run:{run_id(c)}" for c in trained}
    at = {(point.arm, point.setting): point.run_id for point in plan.points}
    assert at["so far", "NMS IoU"] == run_id(compose(["data=digits", "loss=dr"]))
    assert {at["focal", setting] for setting in plan.study.settings} == {run_id(compose(["data=digits", "loss=focal"]))}
    assert at["alone", "loss"] == at["so far", "loss"]


def test_a_figure_of_two_thresholds_needs_them_before_anything_is_trained(tmp_path):
    folder = write(tmp_path, {**MINE, "figures": ["overfitting"], "metrics": ["AP", "AP at 0.5"]})
    with pytest.raises(UsageError, match="study mine: figure overfitting: needs metrics at two thresholds"):
        check_study(load_study("mine", folder))
