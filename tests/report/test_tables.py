"""Tables from constructed records: every number in them can be traced."""

import json

import numpy as np
import pandas as pd
import pytest

from drrepro.config import to_dict
from drrepro.evaluation.bootstrap import draw_counts, resampled_ap
from drrepro.evaluation.coco import METRICS, Matches
from drrepro.report import paper, tables, written
from drrepro.report.evidence import gather
from drrepro.report.table import display
from drrepro.runs.kept import read_matches, write_matches
from drrepro.runs.records import write_record
from drrepro.studies import plan, planning
from drrepro.studies.study import PAPER, load_study
from tests.conftest import shared


def flat_density(config):
    counts = {"foreground": [1] * 200, "background": [9] * 200, "auc": 0.5}
    return [{"fg_iou": 0.5, "bg_iou": iou, **counts} for iou in (config.matcher.bg_iou, 0.45)]  # its own, and a shared


def fake(runs, planned, ap, voc=False, images=0, densities=flat_density):
    """Write a record for each run of a plan; ``ap`` gives AP as a fraction from (config, threshold).

    With ``images`` also matches: of one object an image, found in that fraction of the images.
    """
    for config in planned[1]:
        metrics = []
        for threshold in sorted({*config.evaluation.score_thresholds, config.evaluation.score_threshold}):
            value = ap(config, threshold)
            row = dict.fromkeys(METRICS[:5], value) | {"APl": None}
            row |= {"AP50_2007": value, "AP50_2010": value} if voc else {}
            metrics.append({"nms_iou": config.evaluation.nms_iou, "score_threshold": threshold, **row})
        name = planning.run_id(config)
        write_record(
            runs / name,
            {
                "id": name,
                "config": to_dict(config),
                "metrics": metrics,
                "curve": [{"score_threshold": t / 100, "AP": ap(config, t / 100)} for t in range(5, 96)],
                "densities": densities(config),
                "data": {"train_images": 8, "test_images": 8, "sha256": None, "classes": list("0123456789")}
                | {"dropped_boxes": [], "dropped_images": {}},
                "cost": {
                    **{"train_seconds": 1.0, "train_cpu_seconds": 1.0, "steps_per_second": 2.0},
                    **{"peak_memory_mb": 3, "parameters": 4},
                },
                "machine": {"threads": 1, "cores": 2, "cpu": "abacus", "device": "cpu", "system": "Linux"},
                "versions": {"torch": "0"},
                "python": "3",
                **{"commit": None, "dirty": None, "finished": "today"},
            },
        )
        if images:
            thresholds = [row["score_threshold"] for row in metrics]
            write_matches(runs / name, found_in([ap(config, t) for t in thresholds], thresholds, images))
    plan.save_plan(planned[0], runs)


def found_in(fractions, thresholds, images):
    """Matches that have these AP at these thresholds: nothing false, the same images found by whoever finds as many."""
    scores = np.zeros(images)
    for fraction, threshold in zip(fractions, thresholds, strict=True):
        scores[: round(fraction * images)] = threshold + 0.01
    order = np.argsort(-scores, kind="stable")[: np.count_nonzero(scores)]
    true = np.ones((4, 10, len(order)), bool)
    ranks = np.zeros(len(order), np.int16)
    positives = np.ones((4, 1, images), np.int32)
    return Matches(scores[order], order.astype(np.int32), ranks, true, ~true, np.array([0, len(order)]), positives)


def robust(config, threshold):
    return 0.35 if config.loss.name == "dr" else 0.33 - 0.2 * threshold


def fragile(config, threshold):
    return 0.35 - 0.2 * threshold if config.loss.name == "dr" else 0.36


def only(runs):
    (table,) = tables.build_tables(gather(plan.load_plans(runs), runs))
    return table


def test_table_1_has_the_papers_layout_and_its_numbers(tmp_path):
    fake(tmp_path, planning.plan_study("thresholds", []), robust)
    table = only(tmp_path)
    assert list(table.frame.index.unique(0)) == ["0.05", "0.1", "0.2", "0.3", "0.4", "0.5"]
    assert table.frame.loc[("0.05", "paper"), ("focal", "AP")] == 36.1
    assert table.frame.loc[("0.5", "paper"), ("dr", "APl")] == 50.3
    assert table.frame.loc[("0.5", "ours"), ("focal", "AP")] == pytest.approx(23.0)
    assert table.frame.loc[("0.5", "difference"), ("focal", "AP")] == pytest.approx(23.0 - 28.4)
    assert table.frame.loc[("0.5", "ours"), ("dr - focal", "AP")] == pytest.approx(12.0)
    assert pd.isna(table.frame.loc[("0.5", "ours"), ("dr", "APl")])
    assert table.findings == [
        "undecided: From score threshold 0.05 to 0.5 the AP of DR stays almost the same while that of focal degrades. "
        "AP that DR moves by: 0.0 (at most 0.5, paper 0.2); AP that focal loses: 9.0 (at least 3, paper 7.7)"
    ]


def test_a_claim_that_does_not_hold_is_printed(tmp_path):
    fake(tmp_path, planning.plan_study("thresholds", ["seed=0,1,2"]), fragile, images=400)
    assert only(tmp_path).findings[0].startswith("does not hold: From score threshold 0.05")
    assert "moves by: 9.0 (95% " in only(tmp_path).findings[0]


def test_a_cell_without_a_record_stays_empty(tmp_path):
    planned = planning.plan_study("scales", [])
    fake(tmp_path, planned, robust)
    missing = next(c for c in planned[0].points if c.arm == "dr" and c.setting == "600")
    (tmp_path / missing.run_id / "record.json").unlink()
    table = only(tmp_path)
    assert pd.isna(table.frame.loc[("600", "ours"), ("dr", "AP")])
    assert table.frame.loc[("500", "ours"), ("dr", "AP")] == pytest.approx(35.0)
    assert table.findings[0].startswith("not run: The AP of DR is above that of focal at every")
    shown = display(table)
    row = shown[(shown["scale"] == "600") & (shown["source"] == "ours")].iloc[0]
    assert row["dr AP"] == ""
    assert row["dr - focal AP"] == ""
    assert "9 of 10 runs" in table.title


def test_no_record_at_all_says_not_run(tmp_path):
    for planned in (planning.plan_study(name, []) for name in PAPER):
        plan.save_plan(planned[0], tmp_path)
    for table in tables.build_tables(gather(plan.load_plans(tmp_path), tmp_path)):
        assert table.frame.xs("ours", level="source").isna().all(axis=None)
        assert table.findings[0].startswith("not run: ")


def test_table_3_has_the_metrics_of_the_development_kit_beside_the_papers(tmp_path):
    fake(tmp_path, planning.plan_study("datasets", []), robust, voc=True)
    table = only(tmp_path)
    assert [metric for loss, metric in table.frame.columns if loss == "dr"] == [
        "AP",
        "AP50",
        "AP75",
        "AP50_2007",
        "AP50_2010",
    ]
    assert table.frame.loc[("voc2007", "paper"), ("dr", "AP50")] == 68.6
    assert pd.isna(table.frame.loc[("voc2007", "paper"), ("dr", "AP50_2007")])


def test_seeds_are_averaged_with_their_standard_deviation_and_number(tmp_path):
    fake(
        tmp_path,
        planning.plan_study("thresholds", ["seed=0,1,2"]),
        lambda c, t: 0.3 + 0.03 * c.seed * (c.loss.name == "dr"),
    )
    table = only(tmp_path)
    values = table.frame.xs("0.1")
    assert values.loc[["ours", "sd", "n"], ("dr", "AP")].tolist() == pytest.approx([33, 3, 3])
    assert values.loc[["ours", "sd", "n"], ("focal", "AP50")].tolist() == pytest.approx([30, 0, 3])
    assert values.loc[["ours", "sd", "n"], ("dr - focal", "AP")].tolist() == pytest.approx([3, 3, 3])
    assert values.loc["difference", ("dr - focal", "AP")] == pytest.approx(3 - 1.3)
    assert "seed 0,1,2" in table.title
    shown = display(table)
    assert shown["source"].unique().tolist() == ["paper", "ours", "sd (n)", "difference"]
    assert shown[shown["source"] == "sd (n)"]["dr AP"].unique().tolist() == ["3.0 (3)"]


def test_a_missing_seed_is_left_out_of_the_difference(tmp_path):
    planned = planning.plan_study("thresholds", ["seed=0,1,2"])
    fake(tmp_path, planned, lambda c, t: 0.3 + 0.03 * c.seed * (c.loss.name == "dr"))
    missing = next(c for c in planned[0].points if c.arm == "focal" and c.seed == 2)
    (tmp_path / missing.run_id / "record.json").unlink()
    values = only(tmp_path).frame.xs("0.1")
    assert values.loc["n", [("focal", "AP"), ("dr", "AP"), ("dr - focal", "AP")]].tolist() == [2, 3, 2]
    assert values.loc["ours", ("dr - focal", "AP")] == pytest.approx(1.5)  # of seeds 0 and 1


def test_a_single_run_has_the_interval_of_the_bootstrap(tmp_path):
    planned = planning.plan_study("thresholds", [])
    fake(tmp_path, planned, robust, images=100)
    table = only(tmp_path)
    values = table.frame.xs("0.5")
    counts = draw_counts(100)
    draws = {}
    for cell in planned[0].points:
        (draws[cell.arm],) = 100 * resampled_ap(read_matches(tmp_path / cell.run_id / "matches.npz"), [0.5], counts)
    for column, drawn in ((("dr", "AP"), draws["dr"]), (("dr - focal", "AP"), draws["dr"] - draws["focal"])):
        low, high = np.percentile(drawn - drawn.mean(), [2.5, 97.5]) + table.frame.loc[("0.5", "ours"), column]
        assert values.loc[["95% low", "95% high"], column].tolist() == pytest.approx([low, high])
    assert pd.isna(values.loc["95% low", ("dr", "AP50")])
    assert "95%: from 1000 resamples of the test images" in table.title
    shown = display(table)
    assert shown["source"].unique().tolist() == ["paper", "ours", "95%", "difference"]
    row = shown[(shown["threshold"] == "0.5") & (shown["source"] == "95%")].iloc[0]
    low, high = values.loc[["95% low", "95% high"], ("dr", "AP")]
    assert row["dr AP"] == f"{low:.1f}..{high:.1f}"
    written.write_files(written.table_files(gather(plan.load_plans(tmp_path), tmp_path)), tmp_path / "results")
    csv = tmp_path / "results" / "digits" / "table1.csv"
    assert {"paper", "ours", "95% low", "95% high", "difference"} == set(pd.read_csv(csv)["source"])


def test_a_run_without_matches_has_no_interval(tmp_path):
    planned = planning.plan_study("thresholds", [])
    fake(tmp_path, planned, robust, images=50)
    gone = next(c for c in planned[0].points if c.arm == "dr")
    (tmp_path / gone.run_id / "matches.npz").unlink()
    low = only(tmp_path).frame.xs("0.5").loc["95% low"]
    assert pd.isna(low["dr", "AP"])
    assert pd.isna(low["dr - focal", "AP"])
    assert low["focal", "AP"] > 0


def test_files_hold_the_numbers_that_are_printed(tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    fake(runs, planning.plan_study("thresholds", []), robust)
    found = gather(plan.load_plans(runs), runs)
    paths = written.write_files(written.table_files(found), results) + written.keep(found, results)
    assert {p.suffix for p in paths} == {".csv", ".md", ".tex", ".json"}
    csv = pd.read_csv(results / "digits" / "table1.csv")
    assert csv.loc[(csv["threshold"] == 0.5) & (csv["source"] == "ours"), "dr AP"].item() == pytest.approx(35.0)
    markdown = (results / "digits" / "table1.md").read_text()
    assert "35.0" in markdown
    assert "- undecided: From score threshold 0.05" in markdown
    assert r"\begin{tabular}" in (results / "digits" / "table1.tex").read_text()
    (copy,) = (results / "digits" / "records").glob("digits-focal-*.json")
    record = json.loads(copy.read_text())
    assert record["metrics"][0]["AP"] == pytest.approx(0.32)


def test_the_published_numbers_are_all_there():
    own = {
        (study.number, arm, setting, metric): round(100 * value, 6)
        for study in map(load_study, PAPER)
        for setting, arms in study.published.numbers.items()
        for arm, metrics in arms.items()
        for metric, value in metrics.items()
    }
    assert len(own) == 6 * (12 + 10) + 3 * 2
    assert own[2, "dr", "800", "AP"] == 37.6
    published = pd.read_csv(shared("../paper") / "tables.csv", dtype={"setting": str}).melt(
        ["table", "loss", "setting"]
    )
    assert own == {tuple(row[:4]): row[4] for row in published.dropna().itertuples(index=False)}


def test_a_grid_is_a_plain_table(tmp_path):
    planned = planning.grid(["loss=dr,focal", "schedule.lr=0.001,0.002", "evaluation.split=tune"], name="tuning")
    fake(tmp_path, planned, robust)
    found = gather(plan.load_plans(tmp_path), tmp_path)
    frame = tables.plain_table(found[0])
    assert frame["schedule.lr"].tolist() == ["0.001", "0.002"] * 2
    assert frame["AP"].tolist() == pytest.approx([35.0, 35.0, 32.0, 32.0])
    assert set(frame["split"]) == {"tune"}
    assert {"digits/tuning.csv", "digits/tuning.md"} <= set(written.table_files(found))


def test_own_data_stand_alone_unless_the_papers_numbers_are_asked_for(tmp_path):
    fake(tmp_path, planning.plan_study("thresholds", ["data=voc_custom", "data.root=x"]), robust, voc=True)
    table = only(tmp_path)
    assert set(table.frame.index.unique("source")) == {"ours"}
    assert "paper" not in table.title + "".join(table.findings)
    found = gather([paper.beside(kept) for kept in plan.load_plans(tmp_path)], tmp_path)
    (table,) = tables.build_tables(found)
    assert table.frame.loc[("0.05", "paper"), ("focal", "AP")] == 36.1
    assert "(paper: COCO val2017; " in table.title
    assert "paper 0.2" in table.findings[0]


def test_many_arms_have_a_row_each_beside_the_published_number_of_each(tmp_path):
    planned = planning.plan_study("losses", [])
    fake(tmp_path, planned, lambda config, threshold: {"ap": 0.5, "focal": 0.3}.get(config.loss.name, 0.4))
    table = only(tmp_path)
    assert len(table.cells) == 2 * len(table.study.arms)
    assert list(table.frame.columns)[-1] == ("gain over focal", "AP")
    assert list(display(table).columns)[:4] == ["recipe, loss", "source", "AP", "AP at 0.05"]
    own = "own recipe, AP loss"
    assert table.frame.loc[(own, "paper"), ("", "AP")] == pytest.approx(35.4)
    assert table.frame.loc[(own, "paper"), ("gain over focal", "AP")] == pytest.approx(-2.1)  # of its own source
    assert table.frame.loc[(own, "ours"), ("", "AP at 0.5")] == pytest.approx(50)
    assert table.frame.loc[(own, "ours"), ("gain over focal", "AP")] == pytest.approx(20)
    assert table.frame.loc[("focal's recipe, AP loss", "ours"), ("gain over focal", "AP")] == pytest.approx(20)
    assert pd.isna(table.frame.loc[("own recipe, focal loss", "ours"), ("gain over focal", "AP")])
