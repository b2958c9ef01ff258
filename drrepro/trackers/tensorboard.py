"""TensorBoard: event files in the run's folder."""

import time
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from drrepro.runs.folder import RunFolder
from drrepro.training.sinks import Numbers, Tracker


class TensorBoard(Tracker):
    """``tensorboard --logdir runs`` shows it."""

    def __init__(self, folder: RunFolder, config: dict[str, Any]) -> None:
        super().__init__(folder, config)
        path = folder.path / "tensorboard"
        while any(path.glob(f"*.{int(time.time())}.*")):  # names have the second, and are read in their order
            time.sleep(0.1)
        self.writer = SummaryWriter(str(path))

    def last_step(self) -> int:
        """Read it from the event files."""
        events = EventAccumulator(self.writer.get_logdir(), size_guidance={"scalars": 0}).Reload()
        known = "train/loss" in events.Tags()["scalars"]
        return int(events.Scalars("train/loss")[-1].step) if known else 0

    def send(self, step: int, numbers: Numbers) -> None:
        """Write a scalar each, the loss last: its step is what counts as sent."""
        for name in sorted(numbers, key=lambda name: name == "train/loss"):
            self.writer.add_scalar(name, numbers[name], step)
        self.writer.flush()

    def finish(self, metrics: Numbers) -> None:
        """Write the metrics at the last step."""
        self.send(self.sent, metrics)
        self.writer.close()
