"""What results/ keeps is enough to make it again, to say what differs, and to compare a reproduction with it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from drrepro.cli import app
from drrepro.errors import UsageError
from drrepro.evaluation.bootstrap import RESAMPLES
from drrepro.report.claims import build_claims
from drrepro.report.compare import compare, summary
from drrepro.report.evidence import gather
from drrepro.report.verify import verify
from drrepro.report.written import claim_files, keep, read_kept, table_files, write_files
from drrepro.studies import plan, planning
from tests.report.test_tables import fake, robust

RESULTS = Path(__file__).parents[2] / "results"


def write(runs, results, ap=robust, seeds="0,1"):
    """Make runs of Table 1 and a grid, and their results."""
    fake(runs, planning.plan_study("thresholds", [f"seed={seeds}"]), ap, images=40)
    fake(runs, planning.grid(["loss=dr,focal", "evaluation.split=tune"], name="tuning"), ap)
    found = gather(plan.load_plans(runs), runs)
    write_files({**table_files(found), **claim_files(build_claims(found))}, results)
    keep(found, results)
    return found


def states(results):
    return {check.name: check.state for check in verify(results) if check.state != "identical"}


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch):
    monkeypatch.setattr("drrepro.report.evidence.RESAMPLES", 100)


def test_what_is_kept_is_what_was_found(tmp_path):
    found = write(tmp_path / "runs", tmp_path / "results")
    for kept, own in zip(read_kept(tmp_path / "results"), sorted(found, key=lambda e: e.plan.name), strict=True):
        assert kept.plan == own.plan
        assert kept.records == own.records
        for name in kept.records:
            assert kept.resampled[name].keys() == own.resampled.get(name, {}).keys()
            for threshold, ap in kept.resampled[name].items():
                np.testing.assert_array_equal(ap, own.resampled[name][threshold])


def test_results_verify_until_a_number_is_touched(tmp_path):
    results = tmp_path / "results"
    write(tmp_path / "runs", results)
    assert len(verify(results)) == 3 + 2 + 2 + 2 + 6  # table, grid, runs, claims; records
    assert states(results) == {}
    table = results / "digits" / "table1.csv"
    table.write_text(table.read_text().replace("35.0", "35.1", 1))
    (results / "claims.md").unlink()
    (results / "digits" / "table9.md").write_text("36.0")
    assert states(results) == {
        "digits/table1.csv": "differs",
        "claims.md": "missing",
        "digits/table9.md": "made of no plan",
    }


def test_a_record_that_was_touched_has_another_id_or_other_tables(tmp_path):
    results = tmp_path / "results"
    write(tmp_path / "runs", results)
    path = next((results / "digits" / "records").glob("digits-dr-128-s1-*.json"))
    record = json.loads(path.read_text())
    record["config"]["schedule"]["lr"] *= 2
    record["metrics"][0]["AP"] += 0.01
    path.write_text(json.dumps(record))
    found = states(results)
    assert found[f"digits/records/{path.name}"] == "is of another id"
    assert found["digits/table1.csv"] == "differs"


def test_an_interval_needs_the_resampled_ap(tmp_path):
    results = tmp_path / "results"
    write(tmp_path / "runs", results)
    (kept, *_) = (results / "digits" / "resampled").glob("digits-dr-*.npz")
    kept.write_bytes(b"no zip")
    with pytest.raises(UsageError, match=r"\.npz: not readable"):
        verify(results)
    kept.unlink()
    assert states(results)["digits/table1.csv"] == "differs"


def test_no_results_is_said(tmp_path):
    with pytest.raises(UsageError, match="nowhere: no results here"):
        verify(tmp_path / "nowhere")


def test_a_reproduction_is_compared_cell_by_cell(tmp_path):
    write(tmp_path / "runs", tmp_path / "results", seeds="0,1,2")
    write(tmp_path / "again", tmp_path / "reproduced", seeds="1")
    frame = compare(tmp_path / "reproduced", tmp_path / "results")
    assert len(frame) == 6 * 3
    assert set(frame["verdict"]) == {"identical"}
    assert set(frame["seeds"]) == {"1"}
    assert summary(frame, Path("results")) == "18 cells beside results: 18 identical; the same data"

    def other(config, threshold):
        return robust(config, threshold) + (0.3 if config.loss.name == "dr" else 0.0001)

    write(tmp_path / "other", tmp_path / "reproduced", ap=other, seeds="7")
    frame = compare(tmp_path / "reproduced", tmp_path / "results").set_index(["setting", "column"])
    assert frame.loc[("0.05", "dr AP"), "verdict"] == "outside"
    assert frame.loc[("0.05", "dr AP"), "difference"] == pytest.approx(30)
    assert frame.loc[("0.05", "focal AP"), "verdict"] == "inside"
    assert set(frame["seeds"]) == {"others"}


def test_other_data_have_nothing_to_compare_with(tmp_path):
    write(tmp_path / "runs", tmp_path / "results")
    fake(tmp_path / "mine", planning.plan_study("thresholds", ["data=voc_custom", "data.root=x"]), robust, voc=True)
    keep(gather(plan.load_plans(tmp_path / "mine"), tmp_path / "mine"), tmp_path / "reproduced")
    frame = compare(tmp_path / "reproduced", tmp_path / "results")
    assert "no table of these data" in summary(frame, Path("results"))


def test_the_published_results_verify_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr("drrepro.report.evidence.RESAMPLES", RESAMPLES)  # not fewer
    done = CliRunner().invoke(app, ["report", "verify", "--results", str(RESULTS)])
    assert done.exit_code == 0, done.output
    (count, total) = (int(done.stdout.split(" ")[i]) for i in (0, 2))
    assert count == total > 60
    copy = shutil.copytree(RESULTS, tmp_path / "copy")
    (copy / "digits" / "table2.md").write_text("better")
    broken = CliRunner().invoke(app, ["report", "verify", "--results", str(copy)])
    assert broken.exit_code == 1
    assert "table2.md differs" in broken.output
