import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time

from drrepro.runs.lock import hold, is_held, owner

HOLDER = """
import sys, time
from pathlib import Path
from drrepro.runs.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(directory, seconds):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(directory), str(seconds)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    return process


def test_one_waits_for_the_other_and_says_for_whom(tmp_path, caplog):
    process = holder(tmp_path, 3)
    assert is_held(tmp_path)
    assert owner(tmp_path)["pid"] == process.pid
    with hold(tmp_path):
        assert process.wait() == 0
        assert owner(tmp_path)["pid"] == os.getpid()
    assert f"being carried out by process {process.pid} on" in caplog.text
    assert "taken over" not in caplog.text
    assert not is_held(tmp_path)
    assert owner(tmp_path) is None


def test_the_lock_of_a_killed_owner_is_taken_over_at_once_and_said(tmp_path, caplog):
    process = holder(tmp_path, 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not is_held(tmp_path)
    start = time.monotonic()
    with hold(tmp_path):
        assert time.monotonic() - start < 5
    assert f"taken over from process {process.pid} on" in caplog.text


def test_those_who_look_at_a_lock_hinder_nobody(tmp_path, caplog):
    with hold(tmp_path):
        pass
    with (tmp_path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not is_held(tmp_path)
        threading.Timer(0.1, file.close).start()
        with hold(tmp_path) as waited:
            assert not waited
    assert caplog.text == ""


def test_a_note_from_the_future_or_damaged_changes_nothing(tmp_path):
    for content in (json.dumps({"pid": 1, "host": "x", "heartbeat": "2099-01-01 00:00:00"}), "{", "[]"):
        (tmp_path / "owner.json").write_text(content)
        with hold(tmp_path):
            assert is_held(tmp_path)
