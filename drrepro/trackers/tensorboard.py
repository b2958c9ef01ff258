"""TensorBoard: event files in the run's folder."""

from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from drrepro.runs.folder import RunFolder
from drrepro.training.sinks import Numbers, Tracker

FOLDER = "tensorboard"


class TensorBoard(Tracker):
    """``tensorboard --logdir runs`` shows it."""

    def __init__(self, folder: RunFolder, config: dict[str, Any]) -> None:
        super().__init__(folder, config)
        self.path = str(folder.path / FOLDER)
        self.writer: SummaryWriter | None = None  # opened when there is something to write

    def last_step(self) -> int:
        """Read it from the event files."""
        events = EventAccumulator(self.path, size_guidance={"scalars": 0}).Reload()
        known = "train/loss" in events.Tags()["scalars"]
        return int(events.Scalars("train/loss")[-1].step) if known else 0

    def send(self, step: int, numbers: Numbers) -> None:
        """Write a scalar each, the loss last: its step is what counts as sent."""
        self.writer = self.writer or SummaryWriter(self.path)
        for name in sorted(numbers, key=lambda name: name == "loss"):
            self.writer.add_scalar(f"train/{name}", numbers[name], step)
        self.writer.flush()

    def finish(self, metrics: Numbers) -> None:
        """Write the metrics at the last step."""
        self.writer = self.writer or SummaryWriter(self.path)
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, self.sent)
        self.writer.close()
