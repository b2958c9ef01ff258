"""What a launcher starts for one run: `python -m drrepro.experiments.job`, or torchrun of it."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drrepro.interrupt import interruptible

LOG = "log.txt"
POLL = 0.2  # s


@dataclass(frozen=True)
class Command:
    """One run, or torchrun of it; what it prints goes to ``log``."""

    arguments: list[str]
    log: Path
    ranks: int
    cpus: int
    gpus: str | None = None  # none: all that the engine shows

    def start(self, own_session: bool = False) -> "subprocess.Popen[bytes]":
        """Start it, and perhaps keep the terminal's signals from it."""
        # --standalone lets each torchrun find a free port, so that several on one machine do not meet.
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.ranks)]
        line = [*(torchrun if self.ranks > 1 else []), "-m", "drrepro.experiments.job", *self.arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, self.cpus // self.ranks))}
        if self.gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *line], env=environment, stdout=log, stderr=log, start_new_session=own_session
            )

    def __call__(self) -> int:
        """Carry it out and return its exit code; stop it, with a checkpoint, when the engine stops this process."""
        process = self.start()
        try:
            with interruptible(), suppress(KeyboardInterrupt):
                while process.poll() is None:
                    time.sleep(POLL)  # no wait(): what Ray cancels with wakes no process from a system call
        finally:
            process.terminate()
            process.wait()
        return process.returncode

    def checkpoint(self) -> Any:
        """Return what Slurm is to queue when it pre-empts this or its time is up: submitit asks for it."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
