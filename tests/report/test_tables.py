"""Tables from constructed records: every number in them can be traced."""

import json

import pandas as pd
import pytest

from drrepro.config import to_dict
from drrepro.experiments import plan
from drrepro.experiments.records import write_record
from drrepro.report import tables


def fake(runs, planned, ap, voc=False):
    """Write a record for each run of a plan; ``ap`` gives AP as a fraction from (config, threshold)."""
    for config in planned[1]:
        metrics = []
        for threshold in sorted({*config.evaluation.score_thresholds, config.evaluation.score_threshold}):
            value = ap(config, threshold)
            row = dict.fromkeys(tables.COCO[:5], value) | {"APl": None}
            row |= {"AP50_2007": value, "AP50_2010": value} if voc else {}
            metrics.append({"nms_iou": config.evaluation.nms_iou, "score_threshold": threshold, **row})
        name = plan.run_id(config)
        write_record(
            runs / name,
            {
                "id": name,
                "config": to_dict(config),
                "metrics": metrics,
                "curve": [{"score_threshold": t / 100, "AP": ap(config, t / 100)} for t in range(5, 96)],
                "densities": {"foreground": [1] * 200, "background": [9] * 200},
                "cost": {"train_seconds": 1.0, "steps_per_second": 2.0, "peak_memory_mb": 3},
                "machine": {"threads": 1, "cpu": "abacus"},
                "versions": {"torch": "0"},
                **{"commit": None, "dirty": None, "finished": "today"},
            },
        )
    plan.save_plan(planned[0], runs)


def robust(config, threshold):
    return 0.35 if config.loss.name == "dr" else 0.33 - 0.2 * threshold


def fragile(config, threshold):
    return 0.35 - 0.2 * threshold if config.loss.name == "dr" else 0.36


def only(runs):
    (table,) = tables.build_tables(plan.load_plans(runs), runs)
    return table


def test_table_1_has_the_papers_layout_and_its_numbers(tmp_path):
    fake(tmp_path, plan.thresholds([]), robust)
    table = only(tmp_path)
    assert list(table.frame.index.unique(0)) == ["0.05", "0.1", "0.2", "0.3", "0.4", "0.5"]
    assert table.frame.loc[("0.05", "paper"), ("focal", "AP")] == 36.1
    assert table.frame.loc[("0.5", "paper"), ("dr", "APl")] == 50.3
    assert table.frame.loc[("0.5", "ours"), ("focal", "AP")] == pytest.approx(23.0)
    assert table.frame.loc[("0.5", "difference"), ("focal", "AP")] == pytest.approx(23.0 - 28.4)
    assert table.frame.loc[("0.5", "ours"), ("dr - focal", "AP")] == pytest.approx(12.0)
    assert pd.isna(table.frame.loc[("0.5", "ours"), ("dr", "APl")])
    assert all(finding.startswith("comes out") for finding in table.findings)


def test_a_claim_that_does_not_come_out_is_printed(tmp_path):
    fake(tmp_path, plan.thresholds([]), fragile)
    assert all(finding.startswith("DOES NOT COME OUT") for finding in only(tmp_path).findings)
    fake(tmp_path / "2", plan.scales([]), lambda c, t: fragile(c, t))
    assert only(tmp_path / "2").findings[0].startswith("DOES NOT COME OUT: DR is above focal at 0 of 5 scales")
    fake(tmp_path / "3", plan.datasets([]), fragile, voc=True)
    assert only(tmp_path / "3").findings[0].startswith("DOES NOT COME OUT")


def test_a_cell_without_a_record_stays_empty(tmp_path):
    planned = plan.scales([])
    fake(tmp_path, planned, robust)
    missing = next(c for c in planned[0].cells if c.loss == "dr" and c.setting == "600")
    (tmp_path / missing.run_id / "record.json").unlink()
    table = only(tmp_path)
    assert pd.isna(table.frame.loc[("600", "ours"), ("dr", "AP")])
    assert table.frame.loc[("500", "ours"), ("dr", "AP")] == pytest.approx(35.0)
    assert table.findings[0].startswith("not complete")
    shown = tables.display(table.frame)
    row = shown[(shown["scale"] == "600") & (shown["source"] == "ours")].iloc[0]
    assert row["dr AP"] == ""
    assert row["dr - focal AP"] == ""
    assert "9 of 10 runs" in table.title


def test_no_record_at_all_says_not_run(tmp_path):
    for planned in (plan.thresholds([]), plan.scales([]), plan.datasets([])):
        plan.save_plan(planned[0], tmp_path)
    for table in tables.build_tables(plan.load_plans(tmp_path), tmp_path):
        assert table.frame.xs("ours", level="source").isna().all(axis=None)
        assert table.findings[0].endswith("not run")


def test_table_3_has_the_metrics_of_the_development_kit_beside_the_papers(tmp_path):
    fake(tmp_path, plan.datasets([]), robust, voc=True)
    table = only(tmp_path)
    assert [metric for loss, metric in table.frame.columns if loss == "dr"] == list(tables.VOC)
    assert table.frame.loc[("voc2007", "paper"), ("dr", "AP50")] == 68.6
    assert pd.isna(table.frame.loc[("voc2007", "paper"), ("dr", "AP50_2007")])


def test_seeds_are_averaged(tmp_path):
    fake(tmp_path, plan.thresholds(["seed=0,1,2"]), lambda c, t: 0.3 + 0.03 * c.seed)
    table = only(tmp_path)
    assert table.frame.loc[("0.1", "ours"), ("dr", "AP")] == pytest.approx(33.0)
    assert "seed 0,1,2" in table.title


def test_files_hold_the_numbers_that_are_printed(tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    fake(runs, plan.thresholds([]), robust)
    paths = tables.write_tables([only(runs)], results) + tables.copy_records(plan.load_plans(runs), runs, results)
    assert {p.suffix for p in paths} == {".csv", ".md", ".tex", ".json"}
    csv = pd.read_csv(results / "digits" / "table1.csv")
    assert csv.loc[(csv["threshold"] == 0.5) & (csv["source"] == "ours"), "dr AP"].item() == pytest.approx(35.0)
    markdown = (results / "digits" / "table1.md").read_text()
    assert "35.0" in markdown
    assert "comes out" in markdown
    assert r"\begin{tabular}" in (results / "digits" / "table1.tex").read_text()
    (copy,) = (results / "digits" / "records").glob("digits-focal-*.json")
    record = json.loads(copy.read_text())
    assert record["metrics"][0]["AP"] == pytest.approx(0.32)


def test_the_published_numbers_are_all_there():
    published = tables.paper_numbers()
    assert len(published) == 12 + 10 + 2
    assert published.loc[(2, "dr", "800"), "AP"] == 37.6


def test_a_grid_is_a_plain_table(tmp_path):
    planned = plan.grid(["loss=dr,focal", "schedule.lr=0.001,0.002", "evaluation.split=tune"], name="tuning")
    fake(tmp_path, planned, robust)
    (kept,) = plan.load_plans(tmp_path)
    frame = tables.plain_table(kept, tables.records_of(kept, tmp_path))
    assert frame["schedule.lr"].tolist() == ["0.001", "0.002"] * 2
    assert frame["AP"].tolist() == pytest.approx([35.0, 35.0, 32.0, 32.0])
    assert set(frame["split"]) == {"tune"}
    (csv, _) = tables.write_plain(kept.name, kept.data, frame, tmp_path / "results")
    assert csv.name == "tuning.csv"
