"""Where a number comes from: code, packages, machine."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from drrepro import __version__
from drrepro.runs.records import Provenance

PACKAGES = ("torch", "torchvision", "pycocotools", "numpy", "pandas", "pillow", "matplotlib", "scikit-learn")


def provenance(device: torch.device) -> Provenance:
    """Return date, git commit and dirty flag, package versions, and the machine."""
    commit, dirty = git_state(Path(__file__).parent)
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "versions": {"drrepro": __version__, **{name: metadata.version(name) for name in PACKAGES}},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
        },
    }


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Return the commit of the checkout that holds ``folder`` and whether it has changes; None outside one."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    if git("ls-files", "--error-unmatch", str(folder / "__init__.py")) is None:
        return None, None  # an installed package inside somebody else's checkout
    return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
