"""MLflow: a run of an experiment on a tracking server, or in a folder."""

import time
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from drrepro.runs.folder import RunFolder
from drrepro.training.sinks import Numbers, Tracker


class MLflow(Tracker):
    """``uri`` as in MLFLOW_TRACKING_URI, whose value is the default."""

    def __init__(
        self, folder: RunFolder, config: dict[str, Any], experiment: str = "drrepro", uri: str | None = None
    ) -> None:
        super().__init__(folder, config)
        self.client, self.experiment = MlflowClient(uri), experiment
        self.run: str | None = self.remembered().get("run")

    def last_step(self) -> int:
        """Ask the server; begin a run where there is none yet."""
        if self.run is None:
            found = self.client.get_experiment_by_name(self.experiment)
            where = found.experiment_id if found else self.client.create_experiment(self.experiment)
            self.run = self.client.create_run(where, run_name=self.config["id"]).info.run_id
            self.remember(run=self.run)
            self.client.log_batch(self.run, params=[Param(key, str(v)[:500]) for key, v in self.config.items()])
        return max((metric.step for metric in self.client.get_metric_history(self.run, "train/loss")), default=0)

    def send(self, step: int, numbers: Numbers) -> None:
        """Log them in one request."""
        now = int(1000 * time.time())
        self.client.log_batch(self.run, [Metric(name, value, now, step) for name, value in numbers.items()])

    def finish(self, metrics: Numbers) -> None:
        """Log the metrics and end the run."""
        self.send(self.sent, metrics)
        self.client.set_terminated(self.run)
