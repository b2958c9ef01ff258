"""Who hears of a run: the loop and the run tell every sink, in this order: resumed, steps and checkpoints, record."""

import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from drrepro.config import run_id, to_dict
from drrepro.errors import RunError, UsageError
from drrepro.files import read_json, write_json, write_text
from drrepro.runs.folder import RunFolder
from drrepro.runs.records import Record, metrics_at, read_metrics
from drrepro.schema import Config

Numbers = dict[str, float]
log = logging.getLogger(__name__)


class Sink:
    """Hears and does nothing: what a sink is to do it overrides."""

    def on_resume(self, step: int) -> None:
        """The run goes on after ``step`` steps, 0 at its start; what was said of later ones does not count."""

    def on_step(self, step: int, numbers: Numbers) -> None:
        """A step that is logged: the loss and its terms, rate, images per second."""

    def on_checkpoint(self, step: int) -> None:
        """The run will not go back behind ``step`` any more."""

    def on_record(self, record: Record) -> None:
        """The run is finished."""


class MetricsFile(Sink):
    """metrics.jsonl: one line a logged step; lines past the checkpoint that a run goes on from are dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_resume(self, step: int) -> None:
        """Drop the lines of later steps."""
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        write_text(self.path, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))

    def on_step(self, step: int, numbers: Numbers) -> None:
        """Add a line."""
        rounded = {name: float(f"{value:.6g}") for name, value in numbers.items()}
        try:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **rounded}) + "\n")
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written ({error.strerror}); free some space") from None


class Tracker(Sink):
    """An experiment tracker gets the lines of metrics.jsonl up to each checkpoint, which no resumed run takes back.

    So a run that is killed and goes on is one tracked run, and no step is in it twice: `last_step` says what it has. Of
    a tracker that cannot be asked the step after which the process was killed may be there twice.
    A tracker is constructed with the run's folder, its configuration and the keys of ``tracker.options``.
    """

    def __init__(self, folder: RunFolder, config: dict[str, Any]) -> None:
        self.folder, self.config = folder, config
        self.sent = 0

    def on_resume(self, step: int) -> None:
        """Find out what was sent before, and send what should have been. Raises RunError where that fails."""
        try:
            self.sent = self.last_step()
            self._send_until(step)
        except Exception as error:  # each tracker raises whatever it likes
            raise RunError(f"tracker {type(self).__name__}: {error}; tracker=none does without") from error

    def on_checkpoint(self, step: int) -> None:
        """Send what has come since the last checkpoint; what fails is said, and sent at the next."""
        with self._said():
            self._send_until(step)

    def _send_until(self, step: int) -> None:
        for line in read_metrics(self.folder.metrics):
            if self.sent < line["step"] <= step:
                self.send(int(line["step"]), {f"train/{name}": value for name, value in line.items() if name != "step"})
                self.sent = int(line["step"])
                self.remember(step=self.sent)

    def on_record(self, record: Record) -> None:
        """Send the metrics at the run's own score threshold, and end."""
        row = metrics_at(record, record["config"]["evaluation"]["score_threshold"]) or {}
        metrics = {f"test/{name}": value for name, value in row.items() if value is not None and value == value}
        with self._said():
            self._send_until(record["config"]["schedule"]["steps"])
            if not self.remembered().get("finished"):
                self.finish(metrics)
                self.remember(finished=True)

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Say what fails and go on: a run does not end because somebody could not hear of it."""
        try:
            yield
        except Exception as error:  # each tracker raises whatever it likes
            log.warning("tracker %s: %s; the run goes on", type(self).__name__, error)

    def remembered(self) -> dict[str, Any]:
        """Return what `remember` has kept of this run and tracker; nothing where it is damaged."""
        own = self._all_remembered().get(type(self).__name__, {})
        return own if isinstance(own, dict) else {}

    def remember(self, **kept: Any) -> None:
        """Keep something in the run's folder for the time after an interruption."""
        own = {type(self).__name__: {**self.remembered(), **kept}}
        write_json(self.folder.tracked, {**self._all_remembered(), **own})

    def _all_remembered(self) -> dict[str, Any]:
        try:
            content = read_json(self.folder.tracked)
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def last_step(self) -> int:
        """Return the last step that was sent, here as remembered; a tracker that can be asked overrides this."""
        step = self.remembered().get("step", 0)
        return step if isinstance(step, int) else 0

    def send(self, step: int, numbers: Numbers) -> None:
        """Send the numbers of a step, train/loss among them."""
        raise NotImplementedError

    def finish(self, metrics: Numbers) -> None:
        """Send the metrics and end."""
        raise NotImplementedError


def build_sinks(config: Config, directory: Path) -> list[Sink]:
    """Return metrics.jsonl, if the run trains, and the configured tracker.

    Raises UsageError for options that the tracker does not take.
    """
    folder = RunFolder(directory)
    sinks: list[Sink] = [MetricsFile(folder.metrics)] if config.schedule.steps else []
    tracker = tracker_class(config)
    if tracker is not None:
        try:
            sinks.append(tracker(folder, {"id": run_id(config), **to_dict(config)}, **config.tracker.options))
        except Exception as error:  # each tracker raises whatever it likes
            raise UsageError(f"tracker.options={config.tracker.options}: {error}") from None
    return sinks


def tracker_class(config: Config) -> Callable[..., Tracker] | None:
    """Return the class of the configured tracker, None where there is none.

    Raises UsageError where it is not there or its package not installed.
    """
    target = config.tracker._target_
    if target is None:
        return None
    module, _, name = target.rpartition(".")
    try:
        tracker: Callable[..., Tracker] = getattr(import_module(module), name)
    except Exception as error:  # the file of somebody else raises whatever it likes
        extra = f"pip install 'drrepro[{config.tracker.name}]', or" if module.startswith("drrepro.") else "see whether"
        raise UsageError(f"tracker={config.tracker.name}: {error}; {extra} tracker._target_ names a class") from None
    if not (isinstance(tracker, type) and issubclass(tracker, Tracker)):
        raise UsageError(f"tracker._target_={target}: is no subclass of drrepro.training.sinks.Tracker")
    return tracker


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the last line of a killed run may be half written
        return math.inf
