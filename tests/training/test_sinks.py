"""Who hears of a run hears every step once, whatever happens to the run or to the tracker."""

import json
import random
import subprocess
import sys

import pytest

from drrepro.config import compose, for_evaluation, run_id
from drrepro.errors import RunError, UsageError
from drrepro.experiments.run import run
from drrepro.progress import silent
from drrepro.runs.folder import RunFolder
from drrepro.training.sinks import MetricsFile, Tracker, build_sinks
from tests.conftest import TINY
from tests.processes import kill_at_a_random_moment, start

STEPS = 10
OWN = [*TINY, f"schedule.steps={STEPS}", "runtime.checkpoint_every=3"]


def killed_and_resumed(overrides, runs, data_folder):
    """Carry out a run that is killed twice on its way; return its folder."""
    config, chance = compose([*OWN, *overrides]), random.Random(1)
    folder = RunFolder(runs / run_id(config))
    for _ in range(2):
        kill_at_a_random_moment(start(config, runs, data_folder, pause=0.05), folder.path, chance)
    run(config, runs, data_folder, silent)
    return folder


def test_a_tracker_does_not_change_what_a_run_is():
    assert run_id(compose(["tracker=wandb"])) == run_id(compose([]))
    assert compose(["tracker=mlflow", "tracker.options.uri=http://a"]).tracker.options["uri"] == "http://a"


def test_nothing_is_imported_when_off():
    look = "print([m for m in ('tensorboard', 'mlflow', 'wandb') if m in sys.modules])"
    code = f"import sys, drrepro.experiments.run; {look}"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_tensorboard_has_one_run_without_repeated_steps(tmp_path, data_folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = killed_and_resumed(["tracker=tensorboard"], tmp_path, data_folder)
    events = accumulator.EventAccumulator(str(folder.path / "tensorboard")).Reload()
    logged = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [line["step"] for line in logged] == list(range(1, STEPS + 1))
    for name in ("loss", "classification", "box", "lr"):
        found = [(event.step, pytest.approx(event.value)) for event in events.Scalars(f"train/{name}")]
        assert [(line["step"], line[name]) for line in logged] == found
    assert [event.step for event in events.Scalars("test/AP")] == [STEPS]


def test_mlflow_has_one_run_without_repeated_steps(tmp_path, data_folder, monkeypatch):
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    folder = killed_and_resumed(["tracker=mlflow", f"tracker.options.uri={uri}"], tmp_path, data_folder)
    client = tracking.MlflowClient(uri)
    (one,) = client.search_runs([client.get_experiment_by_name("drrepro").experiment_id])
    assert one.info.run_name == folder.id
    assert one.info.status == "FINISHED"
    history = client.get_metric_history(one.info.run_id, "train/loss")
    assert sorted(metric.step for metric in history) == list(range(1, STEPS + 1))
    assert "test/AP" in one.data.metrics


def test_wandb_has_one_run_without_repeated_steps(tmp_path, data_folder):
    pytest.importorskip("wandb")
    folder = killed_and_resumed(["tracker=wandb", "tracker.options.mode=offline"], tmp_path, data_folder)
    runs = list((folder.path / "wandb").glob("offline-run-*"))
    assert runs
    assert {path.name.split("-", 3)[3] for path in runs} == {folder.id}  # which `wandb sync` makes one of
    assert json.loads(folder.tracked.read_text())["WandB"]["step"] == STEPS


RECORD = {"config": {"evaluation": {"score_threshold": 0.5, "nms_iou": 0.5}, "schedule": {"steps": 5}}}


class Unsure(Tracker):
    """Keeps what it gets, but for a call that fails."""

    def __init__(self, folder, config, fails=()):
        super().__init__(folder, config)
        self.got, self.calls, self.fails = [], 0, fails

    def send(self, step, numbers):
        self.calls += 1
        if self.calls in self.fails:
            raise ConnectionError("no route")
        self.got.append(step)

    def finish(self, metrics):
        raise ConnectionError("gone")


def lines(folder, *steps):
    sink = MetricsFile(folder.metrics)
    for step in steps:
        sink.on_step(step, {"loss": 1.5, "classification": 1.0, "box": 0.5})


def test_what_could_not_be_sent_is_sent_at_the_next_checkpoint(tmp_path, caplog):
    folder = RunFolder(tmp_path)
    tracker = Unsure(folder, {}, fails=[2])
    tracker.on_resume(0)
    lines(folder, 1, 2, 3)
    tracker.on_checkpoint(2)
    assert tracker.got == [1]
    assert "no route; the run goes on" in caplog.text
    tracker.on_checkpoint(3)
    assert tracker.got == [1, 2, 3]
    again = Unsure(folder, {})
    again.on_resume(3)
    lines(folder, 4)
    again.on_checkpoint(4)
    assert again.got == [4]
    lines(folder, 5)
    again.on_record({**RECORD, "metrics": []})  # what the last checkpoint could not send
    assert again.got == [4, 5]
    assert "finished" not in again.remembered()
    assert "gone; the run goes on" in caplog.text


class Sure(Unsure):
    def finish(self, metrics):
        self.got.append(metrics)


def test_the_end_is_told_once_and_trackers_do_not_share_what_they_know(tmp_path):
    folder = RunFolder(tmp_path)
    lines(folder, 1, 2)
    for tracker in (Sure(folder, {}), Unsure(folder, {})):
        tracker.on_resume(2)
        assert tracker.got == [1, 2]
    row = {"score_threshold": 0.5, "nms_iou": 0.5, "AP": 0.25, "APl": float("nan"), "APs": None}
    for _ in range(2):  # the second time after a kill before the record was written
        again = Sure(folder, {})
        again.on_resume(2)
        again.on_record({**RECORD, "metrics": [row]})
    assert again.got == []
    assert Sure(folder, {}).remembered() == {"step": 2, "finished": True}


def test_a_tracker_hears_of_a_run_that_is_evaluated_only(tmp_path, data_folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trained = compose(OWN)
    run(trained, tmp_path, data_folder, silent)
    overrides = [f"weights=run:{run_id(trained)}", "evaluation.nms_iou=0.6", "tracker=tensorboard"]
    config = for_evaluation(trained, overrides)
    run(config, tmp_path, data_folder, silent)
    events = accumulator.EventAccumulator(str(tmp_path / run_id(config) / "tensorboard")).Reload()
    assert len(events.Scalars("test/AP")) == 1
    assert for_evaluation(config, [f"weights=run:{run_id(trained)}", "tracker=none"]).tracker.name == "none"


def test_a_tracker_that_cannot_begin_ends_the_run_at_once(tmp_path):
    class Away(Tracker):
        def last_step(self):
            raise ConnectionError("no such host")

    with pytest.raises(RunError, match="tracker Away: no such host; tracker=none does without"):
        Away(RunFolder(tmp_path), {}).on_resume(0)


def test_lines_past_the_checkpoint_are_dropped(tmp_path):
    folder = RunFolder(tmp_path)
    lines(folder, 1, 2, 3)
    folder.metrics.write_text(folder.metrics.read_text() + '{"step": 4, "lo')
    MetricsFile(folder.metrics).on_resume(2)
    assert [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+tracker._target_=nowhere.Tracker"], "No module named 'nowhere'"),
        (["+tracker._target_=drrepro.trackers.none.Tracker"], "pip install 'drrepro"),
        (["+tracker._target_=tests.training.test_sinks.Unsure", "+tracker.options.colour=red"], "tracker.options="),
        (["+tracker._target_=json.loads"], "is no subclass of drrepro.training.sinks.Tracker"),
    ],
)
def test_a_tracker_that_is_not_there_is_named(overrides, message, tmp_path):
    with pytest.raises(UsageError) as raised:
        build_sinks(compose([o.replace("+tracker._target_", "tracker._target_") for o in overrides]), tmp_path)
    assert message in str(raised.value)
