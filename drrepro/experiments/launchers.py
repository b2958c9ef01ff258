"""Where the processes of a sweep run: on this machine, on a Slurm cluster (submitit), or on Ray.

The engines queue and place; what is here says the same three things to each of them: start this, has it ended, stop it.
A run that needs several machines is none of theirs: start its torchrun by hand.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drrepro.errors import UsageError
from drrepro.experiments.command import Command
from drrepro.runs.folder import RunFolder
from drrepro.schema import LauncherConfig


@dataclass(frozen=True)
class Handle:
    """A started job: ``exit_code`` is None while it runs or waits; ``stop`` lets it write a checkpoint first.

    ``leave_gpu`` says that it needs none any more, and returns whether another may start for that.
    """

    exit_code: Callable[[], int | None]
    stop: Callable[[], object]
    leave_gpu: Callable[[], bool] = lambda: False


def build_launcher(config: LauncherConfig, jobs: int, runs: Path) -> "Local | Slurm | Ray":
    """Return the configured engine. Raises UsageError when its package is not installed.

    ``slots`` of an engine is how many jobs it takes at a time; None: it queues by itself.
    """
    try:
        if config.name == "slurm":
            return Slurm(config, jobs, runs)
        return Ray(config) if config.name == "ray" else Local(config, jobs)
    except ImportError as error:
        raise UsageError(f"launcher={config.name}: {error}; pip install 'drrepro[{config.name}]'") from None


class Local:
    """Processes on this machine, each with its share of the cores, and of the GPUs where there are any."""

    def __init__(self, config: LauncherConfig, jobs: int) -> None:
        self.config, self.slots = config, jobs
        self.free = list(range(jobs))

    def start(self, arguments: list[str], directory: Path) -> Handle:
        """Start a process in a free slot."""
        slot = self.free.pop(0)
        cpus = cpus_of(self.config, self.slots)
        command = Command(arguments, RunFolder(directory).log, self.config.ranks, cpus, self._gpus(slot))
        process = command.fork()

        held = [slot]

        def leave() -> None:
            self.free += held
            held.clear()

        def exit_code() -> int | None:
            if process.exitcode is not None:
                leave()
            return process.exitcode

        def leave_gpu() -> bool:
            if _visible_gpus() and self.config.ranks == 1:  # others wait on theirs for the first
                leave()
            return not held

        return Handle(exit_code, process.terminate, leave_gpu)

    def _gpus(self, slot: int) -> str | None:
        """Return those of a slot, a GPU a rank; slots share them where there are fewer."""
        gpus, ranks = _visible_gpus(), self.config.ranks
        own = [gpus[i % len(gpus)] for i in range(slot * ranks, (slot + 1) * ranks)] if gpus else []
        return ",".join(dict.fromkeys(own)) or None


class Slurm:
    """A job a run, submitted at once; Slurm queues them. ``cluster=local`` tries it out without Slurm."""

    def __init__(self, config: LauncherConfig, jobs: int, runs: Path) -> None:
        import submitit

        self.config, self.slots = config, jobs if config.cluster == "local" else None  # which starts all at once
        try:
            self.executor = submitit.AutoExecutor(folder=runs / "slurm", cluster=config.cluster)
        except RuntimeError as error:  # no Slurm here
            raise UsageError(f"launcher=slurm: {error}; launcher.cluster=local does without") from None
        self.executor.update_parameters(
            name="drrepro",
            timeout_min=config.minutes,
            cpus_per_task=cpus_of(config, jobs),
            gpus_per_node=config.gpus,
            slurm_partition=config.partition,
            slurm_additional_parameters=config.options,
        )

    def start(self, arguments: list[str], directory: Path) -> Handle:
        """Submit a job, which Slurm queues again when it is pre-empted or its time is up (three times)."""
        log, cpus = RunFolder(directory).log, cpus_of(self.config, 1)
        job = self.executor.submit(Command(arguments, log, self.config.ranks, cpus))

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
        cpus = cpus_of(self.config, 1)
        command = Command(arguments, RunFolder(directory).log, self.config.ranks, cpus)
        task = self.ray.remote(num_cpus=cpus, num_gpus=self.config.gpus, max_retries=2)(Command.__call__)
        job = task.remote(command)

        def exit_code() -> int | None:
            ended, _ = self.ray.wait([job], timeout=0)
            if not ended:
                return None
            try:
                return int(self.ray.get(job))
            except self.ray.exceptions.RayError:
                return 1

        return Handle(exit_code, lambda: self.ray.cancel(job))


def cpus_of(config: LauncherConfig, jobs: int) -> int:
    """Return the cores of one run: a share of this machine's, of a cluster's what is asked for."""
    return config.cpus or (max(1, cores() // jobs) if config.name == "local" else 1)


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _visible_gpus() -> list[str]:
    import torch

    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return listed.split(",") if listed else [str(i) for i in range(torch.cuda.device_count())]
