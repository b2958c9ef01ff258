"""What a launcher starts for one run: a process of `drrepro.experiments.job`, or torchrun of it."""

import multiprocessing
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

from drrepro.interrupt import interruptible

POLL = 0.2  # s
FORKS = sys.platform == "linux"  # elsewhere system libraries may not survive a fork


@dataclass(frozen=True)
class Command:
    """One run, or torchrun of it; what it prints goes to ``log``."""

    arguments: list[str]
    log: Path
    ranks: int
    cpus: int
    gpus: str | None = None  # none: all that the engine shows
    modules: str = field(default_factory=lambda: os.environ.get("PYTHONPATH", ""))  # where losses of one's own lie

    def __call__(self) -> int:
        """Carry it out and return its exit code; stop it, with a checkpoint, when the engine stops this process."""
        process = self.fork()
        try:
            with interruptible(), suppress(KeyboardInterrupt):
                while process.exitcode is None:
                    time.sleep(POLL)  # no join(): what Ray cancels with wakes no process from a system call
        finally:
            process.terminate()
            process.join()
        assert process.exitcode is not None  # it has ended
        return process.exitcode

    def fork(self) -> BaseProcess:
        """Start it in a process forked from one that has imported torch, which takes seconds, and done nothing else."""
        context: Any = multiprocessing.get_context("forkserver" if FORKS else "spawn")
        context.set_forkserver_preload(["drrepro.experiments.forkserver"])
        process: BaseProcess = context.Process(target=self._take_over, args=(dict(os.environ),))
        process.start()
        return process

    def _take_over(self, environment: dict[str, str]) -> NoReturn:
        """Carry it out in this process, in the environment of the sweep, and exit; torchrun starts new processes."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()  # a Ctrl-C at the terminal is for the sweep, which stops its jobs
        with self.log.open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.environ.update({**environment, **self.environment})
        sys.path += [path for path in self.modules.split(os.pathsep) if path and path not in sys.path]
        if self.ranks > 1:
            # --standalone lets each torchrun find a free port, so that several on one machine do not meet.
            torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.ranks)]
            job = ["-m", "drrepro.experiments.job", *self.arguments]
            os.execv(sys.executable, [sys.executable, *torchrun, *job])
        import torch
        from threadpoolctl import threadpool_limits

        from drrepro.experiments.job import main

        torch.set_num_threads(self.threads)  # these are imported already, so that OMP_NUM_THREADS comes too late
        threadpool_limits(self.threads)
        sys.exit(main(*map(Path, self.arguments)))

    @property
    def threads(self) -> int:
        """Of a rank."""
        return max(1, self.cpus // self.ranks)

    @property
    def environment(self) -> dict[str, str]:
        """What its processes are to find there beside what is there."""
        gpus = {} if self.gpus is None else {"CUDA_VISIBLE_DEVICES": self.gpus}
        modules = {"PYTHONPATH": self.modules} if self.modules else {}
        return {"OMP_NUM_THREADS": str(self.threads), **modules, **gpus}

    def checkpoint(self) -> Any:
        """Return what Slurm is to queue when it pre-empts this or its time is up: submitit asks for it."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
