"""Weights & Biases: a run of a project, online or in the run's folder until `wandb sync`."""

from typing import Any

import wandb

from drrepro.runs.folder import RunFolder
from drrepro.training.sinks import Numbers, Tracker


class WandB(Tracker):
    """``mode``: online, offline or disabled, as in WANDB_MODE, whose value is the default."""

    def __init__(self, folder: RunFolder, config: dict[str, Any], project: str = "drrepro", mode: Any = None) -> None:
        super().__init__(folder, config)
        self.settings = {"project": project, "mode": mode, "dir": str(folder.path)}
        self.run: Any = None

    def last_step(self) -> int:
        """Begin the run, or go on with it: its id is the run's own; it drops steps that it has already."""
        name = self.config["id"]
        self.run = wandb.init(id=name, name=name, resume="allow", config=self.config, **self.settings)
        return max(super().last_step(), int(self.run.step) - 1)

    def send(self, step: int, numbers: Numbers) -> None:
        """Log a step."""
        self.run.log(numbers, step=step, commit=True)

    def finish(self, metrics: Numbers) -> None:
        """Put the metrics into the run's summary and end it."""
        self.run.summary.update(metrics)
        self.run.finish()
