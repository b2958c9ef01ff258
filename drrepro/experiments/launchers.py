"""Where the processes of a sweep run: on this machine, on a Slurm cluster (submitit), or on Ray.

Every run is one command, `python -m drrepro.experiments.job`, or torchrun of it. The engines queue and place; what is
here says the same three things to each of them: start this, has it ended, stop it.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drrepro.errors import UsageError
from drrepro.schema import LauncherConfig

LOG = "log.txt"


@dataclass(frozen=True)
class Handle:
    """A started job: ``exit_code`` is None while it runs or waits; ``stop`` lets it write a checkpoint first."""

    exit_code: Callable[[], int | None]
    stop: Callable[[], None]


def build_launcher(config: LauncherConfig, jobs: int, runs: Path) -> "Local | Slurm | Ray":
    """Return the configured engine. Raises UsageError when its package is not installed.

    ``slots`` of an engine is how many jobs it takes at a time; None: it queues by itself.
    """
    try:
        if config.name == "slurm":
            return Slurm(config, runs)
        return Ray(config) if config.name == "ray" else Local(config, jobs)
    except ImportError as error:
        raise UsageError(f"launcher={config.name}: {error}; pip install 'drrepro[{config.name}]'") from None


def command(config: LauncherConfig, arguments: list[str]) -> list[str]:
    """Return the command line of a job: torchrun where a run has several ranks."""
    module = ["-m", "drrepro.experiments.job", *arguments]
    if config.ranks == 1:
        return [sys.executable, *module]
    # Port 0 lets each torchrun find a free one, so that several on one machine do not meet.
    ranks = ["-m", "torch.distributed.run", "--nproc-per-node", str(config.ranks), "--master-port", "0"]
    return [sys.executable, *ranks, *module]


class Local:
    """Processes on this machine, each with its share of the cores, and of the GPUs where there are any."""

    def __init__(self, config: LauncherConfig, jobs: int) -> None:
        self.config, self.slots = config, jobs
        self.free = list(range(jobs))

    def start(self, arguments: list[str], directory: Path) -> Handle:
        """Start a process in a free slot."""
        slot = self.free.pop(0)
        with (directory / LOG).open("ab") as log:
            process = subprocess.Popen(
                command(self.config, arguments),
                env=self._environment(slot),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def exit_code() -> int | None:
            code = process.poll()
            if code is not None and slot not in self.free:
                self.free.append(slot)
            return code

        return Handle(exit_code, lambda: process.send_signal(signal.SIGTERM))

    def _environment(self, slot: int) -> dict[str, str]:
        threads = self.config.cpus or max(1, _cores() // self.slots)
        environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, threads // self.config.ranks))}
        gpus = _visible_gpus()
        if gpus:
            first = slot * self.config.ranks
            own = [gpus[i % len(gpus)] for i in range(first, first + self.config.ranks)]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
        return environment


class Slurm:
    """A job a run, submitted at once; Slurm queues them. ``cluster=local`` tries it out without Slurm."""

    slots = None

    def __init__(self, config: LauncherConfig, runs: Path) -> None:
        import submitit

        self.config = config
        self.executor = submitit.AutoExecutor(folder=runs / "slurm", cluster=config.cluster)
        self.executor.update_parameters(
            name="drrepro",
            timeout_min=config.minutes,
            cpus_per_task=config.cpus or 1,
            gpus_per_node=config.gpus,
            slurm_partition=config.partition,
            slurm_additional_parameters=config.options,
        )

    def start(self, arguments: list[str], directory: Path) -> Handle:
        """Submit a job."""
        job = self.executor.submit(_run_logged, command(self.config, arguments), directory / LOG)

        def exit_code() -> int | None:
            if not job.done():
                return None
            return 1 if job.exception() is not None else int(job.result())

        return Handle(exit_code, lambda: job.cancel(check=False))


class Ray:
    """A task a run on a running cluster, or on one of this machine that is started."""

    slots = None

    def __init__(self, config: LauncherConfig) -> None:
        import ray

        self.config, self.ray = config, ray
        if not ray.is_initialized():
            ray.init(address=config.address, log_to_driver=False, logging_level="ERROR")

    def start(self, arguments: list[str], directory: Path) -> Handle:
        """Start a task; Ray runs it again when its machine is lost."""
        cpus = self.config.cpus or 1
        task = self.ray.remote(num_cpus=cpus, num_gpus=self.config.gpus, max_retries=2)(_run_logged)
        job = task.remote(command(self.config, arguments), directory / LOG, {"OMP_NUM_THREADS": str(cpus)})

        def exit_code() -> int | None:
            ended, _ = self.ray.wait([job], timeout=0)
            if not ended:
                return None
            try:
                return int(self.ray.get(job))
            except self.ray.exceptions.RayError:
                return 1

        return Handle(exit_code, lambda: self.ray.cancel(job))


def _run_logged(arguments: list[str], log: Path, environment: dict[str, str] | None = None) -> int:
    """Run a command with its output in ``log``; pass on SIGTERM, which an engine sends before time is up."""
    with log.open("ab") as file:
        process = subprocess.Popen(arguments, stdout=file, stderr=file, env={**os.environ, **(environment or {})})
    try:
        return process.wait()
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _visible_gpus() -> list[str]:
    import torch

    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return listed.split(",") if listed else [str(i) for i in range(torch.cuda.device_count())]
