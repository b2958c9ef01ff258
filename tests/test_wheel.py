"""The wheel alone, in a clean environment and another folder, trains and reports."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def check(*command, **kwargs):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **kwargs)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
def test_the_wheel_holds_conf_and_runs_from_another_folder(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    check(*pip, "wheel", ROOT, "--no-deps", "--no-build-isolation", "-w", tmp_path / "dist")
    check(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    check(*pip, "--python", python, "install", "--no-deps", wheel)
    # The dependencies are lent by this environment; a line in a .pth file lends no editable checkout with them.
    site = Path(check(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = check(python, "-c", "import drrepro; print(drrepro.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(tmp_path)
    drrepro = tmp_path / "venv" / "bin" / "drrepro"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    small = ["schedule.steps=2", "schedule.images_per_step=2", "schedule.warmup_steps=1", "input.scale=64"]
    check(drrepro, "data", "make", "digits", "--limit", "4", cwd=tmp_path, env=environment)
    check(drrepro, "sweep", "thresholds", *small, cwd=tmp_path, env=environment)
    printed = check(drrepro, "report", "tables", cwd=tmp_path, env=environment)
    assert "36.1" in printed
    assert (tmp_path / "reproduced" / "digits" / "table1.csv").is_file()
    check(drrepro, "report", "html", "--quiet", cwd=tmp_path, env=environment)
    assert (tmp_path / "reproduced" / "report.html").is_file()
