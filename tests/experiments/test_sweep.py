import json

import pytest
import torch

from drrepro.config import compose, for_evaluation, run_id
from drrepro.data.embedded import make_embedded
from drrepro.errors import UsageError
from drrepro.experiments.run import run
from drrepro.experiments.sweep import sweep
from drrepro.progress import silent
from drrepro.runs.records import read_record
from drrepro.runs.states import state_of
from drrepro.studies import planning
from tests.conftest import TINY


def test_a_sweep_runs_what_is_missing_goes_on_past_a_failure_and_skips_what_is_done(data_folder, tmp_path):
    _, configs = planning.plan_study("thresholds", TINY)
    broken = compose(
        [*TINY, "schedule.lr=1e30", "schedule.clip_norm=null", "schedule.warmup_steps=0", "schedule.steps=40"]
    )
    outcomes = sweep([broken, *configs], tmp_path, data_folder, 2, silent)
    states = {o.run_id: o.state for o in outcomes}
    assert states == {run_id(broken): "failed", **{run_id(c): "done" for c in configs}}
    assert "not finite" in next(o.why for o in outcomes if o.state == "failed")
    records = [tmp_path / run_id(c) / "record.json" for c in configs]
    before = [path.stat().st_mtime_ns for path in records]
    again = sweep(configs, tmp_path, data_folder, 2, silent)
    assert [o.state for o in again] == ["skipped", "skipped"]
    assert [path.stat().st_mtime_ns for path in records] == before
    assert state_of(tmp_path / run_id(configs[0])).state == "done"
    assert state_of(tmp_path / run_id(compose([*TINY, "seed=9"]))).state == "new"


def test_a_sweep_in_workers_equals_a_run_in_this_process(data_folder, tmp_path):
    configs = [compose([*TINY, f"seed={seed}"]) for seed in (0, 1)]
    sweep(configs, tmp_path / "a", data_folder, 2, silent)
    there = read_record(tmp_path / "a" / run_id(configs[0]))
    before = torch.get_num_threads()
    torch.set_num_threads(there["machine"]["threads"])  # sums depend on how they are split
    try:
        here = run(configs[0], tmp_path / "b", data_folder, silent)
    finally:
        torch.set_num_threads(before)
    assert there["metrics"] == here["metrics"]
    assert there["densities"] == here["densities"]


def test_the_record_says_where_it_comes_from_and_a_finished_run_is_not_run_twice(data_folder, tmp_path):
    config = compose(["data=letters", *TINY])
    record = run(config, tmp_path, data_folder, silent)
    assert record["id"] == run_id(config)
    assert record["config"]["schedule"]["steps"] == 4
    assert record["versions"]["torch"]
    assert record["data"]["sha256"]
    assert record["data"]["test_images"] == 8
    assert len(record["metrics"]) == 6
    assert "AP50_2007" in record["metrics"][0]
    assert [(own["fg_iou"], own["bg_iou"]) for own in record["densities"]] == [(0.5, 0.5), (0.5, 0.4)]
    assert sum(record["densities"][0]["foreground"]) > 0
    assert record["cost"]["train_seconds"] > 0
    assert record["machine"]["cores"] >= 1
    assert isinstance(record["dirty"], bool | None)

    def never(*arguments):
        raise AssertionError("ran again")

    assert run(config, tmp_path, data_folder, never) == record
    files = {path.name for path in (tmp_path / run_id(config)).iterdir()}
    assert files == {
        *(".lock", "config.yaml", "status.json", "metrics.jsonl", "checkpoint.pt"),
        *("detections.json.gz", "densities.npz", "matches.npz", "record.json"),
    }
    assert json.loads((tmp_path / run_id(config) / "status.json").read_text()) == {"state": "done"}


def test_a_record_of_another_version_is_named(data_folder, tmp_path):
    config = compose(TINY)
    directory = tmp_path / run_id(config)
    directory.mkdir()
    (directory / "record.json").write_text('{"schema": 99}')
    with pytest.raises(UsageError, match=r"record\.json: written by another version of drrepro \(schema 99"):
        run(config, tmp_path, data_folder, silent)
    (directory / "record.json").write_text("{")
    with pytest.raises(UsageError, match=r"record\.json: not readable"):
        run(config, tmp_path, data_folder, silent)


def test_other_images_are_another_run(data_folder, tmp_path, monkeypatch):
    """The same command after the data were made anew must not find the record of the old ones."""
    monkeypatch.setenv("DRREPRO_DATA", str(tmp_path))
    make_embedded("digits", tmp_path, lambda *_: None, limit=2)
    first = compose(TINY)
    make_embedded("digits", tmp_path, lambda *_: None, limit=3)
    second = compose(TINY)
    assert run_id(first) != run_id(second)
    with pytest.raises(UsageError, match="other images than this run's"):
        run(first, tmp_path / "runs", tmp_path, silent)


def test_training_goes_on_from_the_weights_of_another_run(data_folder, tmp_path):
    first = run(compose(TINY), tmp_path, data_folder, silent)
    tuned = compose([*TINY, f"weights=run:{first['id']}", "schedule.lr=1e-9"])
    second = run(tuned, tmp_path, data_folder, silent)
    assert second["cost"]["train_seconds"] > 0
    fresh = run(compose([*TINY, "schedule.lr=1e-9"]), tmp_path, data_folder, silent)
    assert second["densities"] != fresh["densities"]


def test_weights_of_other_classes_are_refused(data_folder, tmp_path):
    trained = compose(TINY)
    record = run(trained, tmp_path, data_folder, silent)
    content = json.loads((data_folder / "digits" / "test.json").read_text())
    for category in content["categories"]:
        category["name"] = f"not {category['name']}"
    (tmp_path / "other.json").write_text(json.dumps(content))
    overrides = [
        f"weights=run:{record['id']}",
        "data=coco_custom",
        f"data.test_json={tmp_path / 'other.json'}",
        f"data.test_images={data_folder / 'digits' / 'images' / 'test'}",
    ]
    with pytest.raises(UsageError, match=r"the test split has the classes not 0, .* has 0, 1"):
        run(for_evaluation(trained, overrides), tmp_path, data_folder, silent)
