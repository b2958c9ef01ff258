"""Processes for tests to kill: runs forked from one process that has imported torch already."""

import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from drrepro.config import run_id

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["drrepro.experiments.forkserver"])
PATIENCE = 120.0  # s


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until ``condition`` holds; fail when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def write_slowly(self, content, pieces=10, pause=0.02):
    """Write as tempfile's wrapper does, but checkpoints in pieces, so that a kill can come between."""
    view = memoryview(content)
    if len(view) < 500_000:
        return self.file.write(view)
    size = -(-len(view) // pieces)
    for i in range(0, len(view), size):
        self.file.write(view[i : i + size])
        self.file.flush()
        time.sleep(pause)
    return len(view)


def carry_out(config, runs, data_folder, slow=False, pause=0.0):
    """Carry out a run as `drrepro train` does, in this process; note in ``pids`` who trained."""
    import torch

    from drrepro.experiments.run import run

    torch.set_num_threads(1)
    if slow:
        tempfile._TemporaryFileWrapper.write = write_slowly

    def report(stage, done, total, numbers):
        if stage == "train":
            with (runs / run_id(config) / "pids").open("a") as file:
                file.write(f"{os.getpid()} {done}\n")
            time.sleep(pause)

    run(config, runs, data_folder, report)


def start(config, runs, data_folder, **how):
    """Start `carry_out` in a process of its own."""
    process = context.Process(target=carry_out, args=(config, runs, data_folder), kwargs=how)
    process.start()
    return process


def kill_inside_a_write(process, directory: Path, number: int) -> bool:
    """Kill the process while it writes its ``number``th checkpoint from now; False if it ended before."""
    seen: set[Path] = set(directory.glob(".checkpoint.pt.*"))
    before = len(seen)
    while process.is_alive():
        seen.update(path for path in directory.glob(".checkpoint.pt.*") if _size(path) > 0)
        if len(seen) - before >= number:
            process.kill()
            process.join()
            return True
        time.sleep(0.002)
    return False


def kill_at_a_random_moment(process, directory: Path, chance: random.Random) -> bool:
    """Kill the process within the first steps that it logs; False if it ended before."""
    log = directory / "metrics.jsonl"
    lines = log.read_text().count("\n") if log.is_file() else 0
    wanted = lines + chance.randint(1, 4)
    while process.is_alive() and not (log.is_file() and log.read_text().count("\n") >= wanted):
        time.sleep(0.002)
    time.sleep(chance.random() * 0.2)
    alive = process.is_alive()
    process.kill()
    process.join()
    return alive


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
