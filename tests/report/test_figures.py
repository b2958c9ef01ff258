import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from drrepro.cli import app
from drrepro.errors import UsageError
from drrepro.report.axis_figures import records_by_arm, steps
from drrepro.report.evidence import gather
from drrepro.report.figures import draw_figures, mean_score, plan_figures, score_densities
from drrepro.report.style import style_of
from drrepro.report.tables import build_table
from drrepro.runs.records import read_metrics
from drrepro.studies import plan, planning
from tests.report.test_tables import fake, robust


def test_figures_are_drawn_from_what_is_there(tmp_path):
    runs = tmp_path / "runs"
    fake(runs, planning.plan_study("thresholds", []), robust)
    fake(runs, planning.plan_study("scales", []), robust)
    plan.save_plan(planning.plan_study("datasets", [])[0], runs)  # planned, never run
    paths = draw_figures(plan.load_plans(runs), runs, tmp_path / "results")
    names = {path.relative_to(tmp_path / "results").as_posix() for path in paths}
    assert names == {f"digits/{name}.png" for name in ("figure1", "ap_threshold", "training", "ap_scale")}
    for path in paths:
        with Image.open(path) as image:
            assert image.width > 400


def one_run(loss="dr", name="a", **densities):
    return {"id": name, "config": {"loss": {"name": loss}}, "densities": [dict(fg_iou=0.5, bg_iou=0.5, **densities)]}


def test_figure_1_shows_densities_and_the_background_divided_by_ten():
    record = one_run(foreground=[0] * 140 + [4] * 60, background=[8] * 60 + [0] * 140)
    figure = score_densities([("dr", record)], style_of(["dr"]))
    top, bottom = figure.axes
    names = [text.get_text() for text in bottom.get_legend().get_texts()]
    assert names == ["background / 10, IoU < 0.5, mean 0.15", "foreground, mean 0.85"]
    background, tenth = top.lines[0].get_ydata(), bottom.lines[0].get_ydata()
    assert background.mean() == pytest.approx(1)  # a density over 0..1 integrates to one
    assert abs(tenth * 10 - background).max() < 1e-12


def test_figure_1_shows_runs_beside_each_other_on_the_same_axes():
    low = one_run(foreground=[1] * 200, background=[1] * 200)
    high = one_run(name="b", foreground=[0, 1] * 100, background=[200] + [0] * 199)
    none = one_run("focal", "c", foreground=[0] * 200, background=[0] * 200)
    figure = score_densities([("dr", low), ("dr", high), ("focal", none)], style_of(["dr", "focal"]))
    assert [ax.get_title() for ax in figure.axes[:3]] == ["(a) DR loss\na", "(a) DR loss\nb", "(a) focal loss"]
    for row in (figure.axes[:3], figure.axes[3:]):
        assert len({ax.get_ylim() for ax in row}) == 1
    assert figure.axes[0].get_ylim()[1] >= 200  # the highest of all, though drawn second
    assert {ax.get_xlim() for ax in figure.axes} == {(0.0, 1.0)}


def test_figure_1_of_many_runs_goes_on_below():
    records = [one_run(name=str(i), foreground=[1] * 200, background=[i + 1] + [0] * 199) for i in range(5)]
    figure = score_densities([("dr", record) for record in records], style_of(["dr"]))
    drawn = [ax for ax in figure.axes if ax.has_data()]
    assert [ax.get_title() for ax in drawn[-2:]] == ["(a) DR loss\n4", "(b) DR loss\n4"]
    assert len(drawn) == 10
    assert len({ax.get_ylim() for ax in drawn if ax.get_title().startswith("(a)")}) == 1


def test_figures_of_recipes_are_of_the_first(tmp_path):
    planned = planning.plan_study("losses", ["seed=0,1"])
    fake(tmp_path, planned, robust)
    (evidence,) = gather(plan.load_plans(tmp_path), tmp_path)
    records = records_by_arm(evidence)
    assert list(records) == list(evidence.study.arms)
    assert {record["config"]["evaluation"]["nms_iou"] for record in records["ap"]} == {0.5}
    assert all(len(seeds) == 2 for seeds in records.values())


def test_figure_1_shows_the_labels_of_each_matcher_that_all_runs_share():
    records = [one_run(loss, foreground=[1] * 200, background=[2] * 200) for loss in ("focal", "dr")]
    for record, own in zip(records, (0.3, 0.5), strict=True):
        (density,) = record["densities"]
        record["densities"] = [{**density, "bg_iou": iou} for iou in dict.fromkeys((own, 0.4, 0.5))]
    figure = score_densities([(r["config"]["loss"]["name"], r) for r in records], style_of(["dr", "focal"]))
    for ax in figure.axes[:2]:
        names = [text.get_text() for text in ax.get_legend().get_texts()]
        assert names == [
            *(f"background, IoU < {iou}, mean 0.50" for iou in (0.4, 0.5)),
            "foreground, mean 0.50",
        ]
        assert [line.get_linestyle() for line in ax.lines[::2]] == ["-", "--", "-"]


@pytest.mark.parametrize(("counts", "mean"), [([1, 0, 0, 0], 0.125), ([1, 0, 0, 1], 0.5), ([0, 3, 1, 0], 0.4375)])
def test_the_mean_score_is_that_of_the_histogram(counts, mean):
    assert mean_score(counts) == pytest.approx(mean)
    assert math.isnan(mean_score([0, 0]))


def test_figure_1_of_any_runs_by_the_command(environment):
    planned = planning.plan_study("thresholds", [])
    fake(environment, planned, robust)
    for name, cell in zip(("other", "mine"), planned[0].points, strict=True):
        (environment / cell.run_id).rename(environment / name)
    command = ["report", "figure1", "mine", "run:other", "--output", "of.mine", "--json"]
    assert json.loads(CliRunner().invoke(app, command).stdout) == ["of.mine.png", "of.mine.svg"]
    first = Path("of.mine.svg").read_bytes()
    assert b"<svg" in first
    with Image.open("of.mine.png") as image:
        assert image.width > 1000
    CliRunner().invoke(app, [*command, "--quiet"])
    assert Path("of.mine.svg").read_bytes() == first
    with pytest.raises(UsageError, match="nothing: no finished run here"):
        CliRunner().invoke(app, ["report", "figure1", "nothing"], catch_exceptions=False)


def test_half_written_lines_of_the_metrics_are_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"step": 1, "classification": 1.5, "box": 2}\n\xff\n' + b"[" * 200_000 + b'\n{"step": 2}\n{"step": 3, "cla'
    )
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1]


def test_a_waterfall_leads_from_the_baseline_to_the_last_arm(tmp_path):
    worth = {"dr": 0.1, "prior": 0.04, "matcher": 0.02}

    def ap(config, threshold):
        said = 0.2 + worth["dr"] * (config.loss.name == "dr")
        said += worth["prior"] * (config.model.prior == 0.5) + worth["matcher"] * (config.matcher.bg_iou == 0.5)
        return said - 0.05 * (threshold - 0.05) + 0.1 * (config.evaluation.nms_iou - 0.4)

    fake(tmp_path, planning.plan_study("attribution", ["seed=0,1"]), ap, images=100)
    (evidence,) = gather(plan.load_plans(tmp_path), tmp_path)
    changes = dict(steps(evidence))
    assert list(changes) == ["focal", "loss", "prior", "matcher", "score threshold", "NMS IoU"]
    expected = [20, 10, 4, 2, -0.05 * 15, 1]
    assert [cell.value for cell in changes.values()] == pytest.approx(expected)
    assert all(cell.low <= cell.value <= cell.high for cell in changes.values())
    paths = draw_figures(plan.load_plans(tmp_path), tmp_path, tmp_path / "results")
    assert [path.name for path in paths] == ["attribution-waterfall.png"]
    for point in evidence.plan.points:
        if (point.arm, point.setting) == ("so far", "NMS IoU"):
            (tmp_path / point.run_id / "record.json").unlink()
    assert draw_figures(plan.load_plans(tmp_path), tmp_path, tmp_path / "again") == []


def test_a_study_is_drawn_along_its_axis(tmp_path):
    fake(
        tmp_path, planning.plan_study("length", ["seed=0,1"]), lambda c, t: 0.1 + c.schedule.steps / 1e5 + 0.01 * c.seed
    )
    (evidence,) = gather(plan.load_plans(tmp_path), tmp_path)
    gone = next(point for point in evidence.plan.points if point.setting == "3000" and point.arm == "dr")
    (tmp_path / gone.run_id / "record.json").unlink()
    figures = plan_figures(gather(plan.load_plans(tmp_path), tmp_path)[0], tmp_path)
    assert set(figures) == {"length-ap_axis", "length-gain_axis"}
    (ax,) = figures["length-ap_axis"].axes
    assert [line.get_xdata().tolist() for line in ax.lines] == [[750, 1500, 3000, 6000, 12000]] * 2
    assert ax.lines[0].get_ydata()[0] == pytest.approx(10 + 0.75 + 0.5)


def test_overfitting_is_drawn_against_epochs_on_both_kinds_of_images(tmp_path):
    def ap(config, threshold):  # falls with the threshold by 20 at most, on the images tested
        steps = config.schedule.steps or trained[config.weights]
        return 0.6 - (threshold - 0.05) / 0.45 * 0.2 * (steps / 1500) * (config.evaluation.split == "test")

    planned = planning.plan_study("overfitting", ["seed=0,1"])
    trained = {f"weights=run:{planning.run_id(c)}".removeprefix("weights="): c.schedule.steps for c in planned[1]}
    fake(tmp_path, planned, ap)
    (evidence,) = gather(plan.load_plans(tmp_path), tmp_path)
    assert {point.setting for point in evidence.plan.points} == set(evidence.study.settings)
    figures = plan_figures(evidence, tmp_path)
    (ax,) = figures["overfitting-overfitting"].axes
    lines = {bar.get_label(): bar[0] for bar in ax.containers}
    assert set(lines) == {f"{loss} loss, {split} images" for loss in ("focal", "DR") for split in ("test", "train")}
    for name, line in lines.items():
        assert line.get_xdata() == pytest.approx([400, 800, 1500])  # of 8 images a step, 8 in all
        falls = [-20 * 400 / 1500, -20 * 800 / 1500, -20] if "test" in name else [0, 0, 0]
        assert line.get_ydata() == pytest.approx(falls, abs=1e-9)
    table = build_table(evidence)
    assert table.frame.loc[("1500 test", "ours"), ("dr", "AP at 0.5")] == pytest.approx(40)
    assert table.frame.loc[("1500 train", "ours"), ("dr", "AP at 0.5")] == pytest.approx(60)
    assert "ours: bccd test/train, 24 of 24 runs" in table.title
    assert plan_figures(replace(evidence, records={}), tmp_path) == {}
