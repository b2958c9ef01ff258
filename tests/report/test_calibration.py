"""How far verdicts can be trusted: asked of differences whose spread is known."""

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from drrepro.cli import app
from drrepro.errors import UsageError
from drrepro.report import calibration
from drrepro.report.evidence import gather
from drrepro.report.seeds import seeds_needed
from drrepro.report.written import keep
from drrepro.studies import plan, planning
from tests.report.test_tables import fake


@pytest.fixture(autouse=True)
def _fewer(monkeypatch):
    monkeypatch.setattr(calibration, "SIMULATED", 200)
    monkeypatch.setattr(calibration, "GROUPS", 100)
    monkeypatch.setattr("drrepro.report.evidence.RESAMPLES", 200)


def make(runs, spread):
    """Runs of one recipe and of Table 3, whose AP has the standard deviation ``spread`` over seeds."""
    values = np.random.default_rng(0).normal(0.5, spread, 100)
    for name, seeds in (("same", "range(8)"), ("datasets", "0,1,2")):
        planned = planning.plan_study(name, [f"seed={seeds}"])
        fake(runs, planned, lambda c, t: float(values[c.seed + 50 * (c.loss.name == "dr")]), images=100)
    return gather(plan.load_plans(runs), runs)


def test_intervals_cover_and_verdicts_on_the_same_recipe_are_rarely_false(tmp_path):
    frame = calibration.calibrate(make(tmp_path, 0.05), lambda done, total: None)
    rates = frame.set_index(["measured", "seeds"])["per cent"].astype(float)
    for case in calibration.CASES:
        for n in (2, 3, 5, 10):
            assert 90 <= rates[f"intervals that cover the true difference, {case}", n] <= 100
            holm, alone = (
                f"claims of 5 parts with a false verdict, {case}",
                f"the same without Holm's correction, {case}",
            )
            assert rates[holm, n] <= rates[alone, n]
    assert rates["the same without Holm's correction, spread as in the runs"].mean() > 10
    regrouped = rates["regroupings of 8 runs of one recipe: said to be above or below"]
    assert list(regrouped.index) == [2, 3]  # as many as there are
    assert (rates["regroupings of 8 runs of one recipe: said to be above"] <= regrouped).all()
    assert rates["pairs of 8 runs of one recipe apart by images alone", 1] > 0


@pytest.mark.parametrize("n", [2, 3, 10])
def test_intervals_cover_what_they_say_where_seeds_alone_vary(n, monkeypatch):
    monkeypatch.setattr(calibration, "SIMULATED", 2000)
    covered, false, alone = calibration.simulated("seeds", (1.0, 1e-9, 1e-9), n)
    assert float(covered["per cent"]) == pytest.approx(95, abs=1.5)
    assert float(false["per cent"]) == pytest.approx(5, abs=2.5)
    assert float(alone["per cent"]) == pytest.approx(100 * (1 - 0.95**5), abs=5)


def test_runs_without_matches_are_compared_by_what_all_have(tmp_path):
    found = make(tmp_path, 0.05)
    same = next(evidence for evidence in found if evidence.study.name == "same")
    same.resampled[same.plan.run_ids[0]] = {}
    frame = calibration.calibrate(found, lambda done, total: None).set_index("measured")
    assert (
        frame.loc["pairs of 8 runs of one recipe apart by images alone", "per cent"] == "0.0"
    )  # nothing is known of them


def test_the_spread_of_differences_is_that_of_seeds_and_images(tmp_path):
    of_seeds, _, of_each = calibration.spread(make(tmp_path, 0.05))
    assert 2 < of_seeds < 20  # 5 times sqrt(2), by three seeds
    # each image has its one object or not, and both losses find it or not by the same order: AP's own spread
    assert 0 < of_each < 100 * math.sqrt(0.5 * 0.5 / 100) * 2


def test_without_runs_it_says_what_to_sweep(tmp_path):
    with pytest.raises(UsageError, match="no four runs of the study same here; `drrepro sweep same"):
        calibration.calibrate([], lambda done, total: None)
    found = [e for e in make(tmp_path, 0.05) if e.study.name == "same"]
    with pytest.raises(UsageError, match="no differences of several seeds"):
        calibration.calibrate(found, lambda done, total: None)


def test_the_command_writes_what_verify_checks(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "SIMULATED", 20)
    monkeypatch.setattr(calibration, "GROUPS", 10)
    keep(make(tmp_path / "runs", 0.05), tmp_path / "results")
    asked = ["bench", "verdicts", "--results", str(tmp_path / "results"), "--quiet"]
    shown = CliRunner().invoke(app, asked, catch_exceptions=False).stdout
    assert "intervals that cover the true difference, spread as in the runs" in shown
    path = tmp_path / "results" / "bench" / "verdicts.csv"
    verify = ["report", "verify", "--results", str(tmp_path / "results"), "--json"]

    def states():
        return {check["name"]: check["state"] for check in json.loads(CliRunner().invoke(app, verify).stdout)}

    assert states()["bench/verdicts.csv"] == "identical"
    path.write_text(path.read_text().replace("same", "other"))
    assert states()["bench/verdicts.csv"] == "differs"


def test_dry_run_says_how_many_seeds_see_a_difference(tmp_path, monkeypatch, data_folder):
    monkeypatch.setenv("DRREPRO_RUNS", str(tmp_path))
    monkeypatch.setenv("DRREPRO_DATA", str(data_folder))
    asked = ["sweep", "datasets", "seed=0,1,2", "--dry-run", "--quiet", "--detect"]
    none = CliRunner().invoke(app, [*asked, "2"])
    assert "no setting here has two seeds of both arms; run seed=0,1 of it first" in str(none.exception)
    make(tmp_path, 0.02)
    said = json.loads(CliRunner().invoke(app, [*asked, "2", "--json"], catch_exceptions=False).stdout)
    (row,) = said["seeds"]
    assert (row["difference"], row["seeds"]) == ("DR - focal at voc2007", 3)
    found = [evidence for evidence in gather(plan.load_plans(tmp_path), tmp_path) if evidence.study.name == "datasets"]
    (more,) = seeds_needed(found, 4).to_dict("records")
    assert int(more["for 4 AP"].split()[0]) < int(row["for 2 AP"].split()[0])
    assert len(said["runs"]) == 6
    alone = CliRunner().invoke(app, ["sweep", "datasets", "--detect", "2"])
    assert "--detect: goes with --dry-run" in str(alone.exception)
