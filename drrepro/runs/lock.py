"""One process at a time carries out a run: an operating-system lock, which dies with its owner, and a note of who.

The lock holds between the hosts of a cluster where their shared folder supports it (NFS from version 4 on, Lustre with
flock). The note, with a heartbeat, is for people; that it is still there when the lock is free tells of a killed owner.
"""

import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from drrepro.errors import RunError
from drrepro.files import read_json, write_json
from drrepro.runs.folder import RunFolder

HEARTBEAT = 10.0  # s
GLANCE = 1.0  # s, much longer than is_held takes

log = logging.getLogger(__name__)


@contextmanager
def hold(directory: Path) -> Iterator[bool]:
    """Hold the lock of a run's folder; wait, and say for whom, while another process has it. Yield whether one had.

    A lock whose owner was killed is taken over at once, which is said. Raises RunError for a folder that cannot be
    written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock, waited = FileLock(RunFolder(directory).lock), False
        try:
            lock.acquire(timeout=GLANCE)
        except Timeout:
            waited = True
            log.warning("%s: being carried out by %s; waiting", directory, _describe(owner(directory)))
            lock.acquire()
    except OSError as error:
        raise RunError(f"{directory}: cannot be written ({error.strerror}); set DRREPRO_RUNS to another") from None
    before = owner(directory)
    if before is not None:
        log.warning("%s: taken over from %s, which ended without a word", directory, _describe(before))
    since, ended = _now(), threading.Event()
    beat = threading.Thread(target=_beat, args=(directory, since, ended), daemon=True)
    try:
        _note(directory, since)
        beat.start()
        yield waited
    finally:
        ended.set()
        if beat.is_alive():
            beat.join()
        RunFolder(directory).owner.unlink(missing_ok=True)
        lock.release()


def is_held(directory: Path) -> bool:
    """Return whether some process holds the lock. Those who ask do not hinder each other."""
    try:
        with RunFolder(directory).lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # none yet, or a folder that cannot be locked: whoever holds it leaves its note
        return owner(directory) is not None
    return False


def owner(directory: Path) -> dict[str, Any] | None:
    """Return host, pid, and since when and when last the owner was heard of, None without one."""
    try:
        content = read_json(RunFolder(directory).owner)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _describe(who: dict[str, Any] | None) -> str:
    if who is None:
        return "another process"
    return f"process {who.get('pid')} on {who.get('host')} (last heard of {who.get('heartbeat')})"


def _note(directory: Path, since: str) -> None:
    who = {"host": socket.gethostname(), "pid": os.getpid(), "since": since, "heartbeat": _now()}
    write_json(RunFolder(directory).owner, who)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _beat(directory: Path, since: str, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT):
        try:
            _note(directory, since)
        except RunError:  # a full disk: the run itself will say so
            return
