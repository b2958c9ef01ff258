import numpy as np
import pytest

from drrepro.errors import UsageError
from drrepro.report import cells, evidence
from drrepro.runs.records import read_record, write_record
from drrepro.studies import plan, planning
from tests.report.test_tables import fake, robust


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch):
    monkeypatch.setattr(evidence, "RESAMPLES", 200)


def gathered(runs):
    (one,) = evidence.gather(plan.load_plans(runs), runs)
    return one


def test_one_seed_has_the_percentiles_of_its_resamples():
    found = cells.estimate([np.append(7.0, np.arange(1001.0))])  # about their mean, 500
    assert (found.value, found.n, found.basis) == (7, 1, "images")
    assert [found.low, found.high] == pytest.approx([7 - 475, 7 + 475])
    alone = cells.estimate([np.array([7.0])])
    assert (alone.value, alone.basis) == (7, "")
    assert np.isnan([alone.sd, alone.low, alone.high]).all()


def test_several_seeds_have_the_interval_of_student():
    found = cells.estimate([np.array([v]) for v in (1.0, 2.0, 3.0)])
    assert (found.value, found.sd, found.n, found.basis) == (2, 1, 3, "seeds")
    half = 4.303 / np.sqrt(3)  # t of 2 degrees of freedom
    assert [found.low, found.high] == pytest.approx([2 - half, 2 + half], rel=0.05, abs=0.1)


def test_images_and_seeds_add_up():
    rng = np.random.default_rng(0)
    images = np.append(0, rng.normal(0, 3, 1000))
    found = cells.estimate([v + images for v in (1.0, 1.1, 1.2)])
    alone = cells.estimate([1.1 + images])
    wider = cells.estimate([v + images for v in (0.0, 1.1, 2.2)])
    assert found.basis == "images and seeds"
    assert found.high - found.low == pytest.approx(alone.high - alone.low, rel=0.05)  # the seeds hardly differ
    assert wider.high - wider.low > 1.1 * (alone.high - alone.low)


def test_resamples_are_kept_and_made_again_when_the_matches_change(tmp_path, monkeypatch):
    fake(tmp_path, planning.plan_study("thresholds", []), robust, images=50)
    first = gathered(tmp_path).measured("focal", "0.3")[0]
    calls = []
    resampled_ap = evidence.resampled_ap
    monkeypatch.setattr(evidence, "resampled_ap", lambda *args: calls.append(1) or resampled_ap(*args))
    again = gathered(tmp_path).measured("focal", "0.3")[0]
    assert not calls
    assert len(first) == 201
    np.testing.assert_array_equal(first, again)
    fake(tmp_path, planning.plan_study("thresholds", []), lambda c, t: 0.5, images=50)
    assert np.mean(next(iter(gathered(tmp_path).resampled.values()))[0.05]) == pytest.approx(0.5, abs=0.03)
    assert len(calls) == 2
    next(tmp_path.glob("*/bootstrap.npz")).write_bytes(b"half of i")
    gathered(tmp_path)
    assert len(calls) == 3


def test_a_runs_folder_that_cannot_be_written_is_resampled_all_the_same(tmp_path):
    fake(tmp_path, planning.plan_study("thresholds", []), robust, images=50)
    for run in tmp_path.glob("*/record.json"):
        (run.parent / "bootstrap.npz").mkdir()  # where the file should be
    assert all(len(own) == 6 for own in gathered(tmp_path).resampled.values())


def test_damaged_matches_are_named(tmp_path):
    fake(tmp_path, planning.plan_study("thresholds", []), robust, images=50)
    path = next(tmp_path.glob("*/matches.npz"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"matches\.npz: not readable .* remove it to do without intervals"):
        gathered(tmp_path)


def test_runs_on_other_test_images_are_no_pair(tmp_path):
    planned = planning.plan_study("thresholds", [])
    fake(tmp_path, planned, robust, images=50)
    assert len(gathered(tmp_path).gains("dr", "0.1")[0]) == 201
    for cell, sha256 in zip(planned[0].points, "ab", strict=True):
        record = read_record(tmp_path / cell.run_id)
        write_record(tmp_path / cell.run_id, {**record, "data": {**record["data"], "sha256": sha256}})
    assert gathered(tmp_path).gains("dr", "0.1")[0].tolist() == pytest.approx([0.04])
