import io
import re
import sys

import pytest

from drrepro import console
from drrepro.experiments import sweep
from drrepro.runs.states import RunState

ID = "digits-dr-128-s0-1a2b3c4d"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(report, monkeypatch, tmp_path, stage, done, total):
    """Report as a sweep does of a run that has come so far."""
    monkeypatch.setattr(
        sweep, "state_of", lambda directory: RunState(ID, "running", stage=stage, done=done, total=total)
    )
    sweep._show(tmp_path / ID, report)


def test_a_plain_line_of_a_sweep_names_the_stage_whose_time_left_it_says(monkeypatch, tmp_path, capsys):
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    with console.progress(quiet=False) as report:
        report(ID, 0, 1, {})
        for now, stage, done, total in (
            *((10, "train", 100, 1500), (40, "train", 700, 1500)),  # 20 steps/s
            *((100, "evaluate", 0, 200), (130, "evaluate", 50, 200)),  # 3 images in 5 s
        ):
            clock[0] = float(now)
            show(report, monkeypatch, tmp_path, stage, done, total)
        report(ID, 1, 1, {})
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"{ID} train 700/1500  40 s left", f"{ID} evaluate 50/200  90 s left", f"{ID} done"]


@pytest.mark.parametrize("after", ["evaluate", ""])
def test_on_a_terminal_a_run_of_a_sweep_has_one_bar(monkeypatch, tmp_path, after):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with console.progress(quiet=False) as report:
        report(ID, 0, 1, {})
        show(report, monkeypatch, tmp_path, "train", 700, 1500)
        if after:
            show(report, monkeypatch, tmp_path, after, 50, 200)
        report("check train", 1, 2, {})  # of nothing that has a bar
    frame = sys.stderr.getvalue().split("\x1b[2K")[-1]  # the last: each erases the lines of the one before
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame)
    assert text.count(ID) == 1
    assert f"{ID} {after or 'train'}" in text
    assert ("50/200" if after else "700/1500") in text
    assert "check train" in text
