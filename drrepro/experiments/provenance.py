"""Where a number comes from: data, code, packages, machine, and what it cost."""

import os
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from drrepro import __version__
from drrepro.data.dataset import Dataset
from drrepro.runs.records import DataSummary, Provenance, RunCost
from drrepro.schema import Config

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


def summary(trained: Dataset | None, tested: Dataset) -> DataSummary:
    """Return what a run read."""
    return {
        "train_images": len(trained.samples) if trained else None,
        "test_images": len(tested.samples),
        "sha256": tested.sha256,
        "classes": tested.classes,
        "dropped_boxes": [*(trained.dropped if trained else []), *tested.dropped],
        "dropped_images": {**(trained.left_out if trained else {}), **tested.left_out},
    }


def cost_of(config: Config, model: nn.Module, seconds: dict[str, float], device: torch.device) -> RunCost:
    """Return what a run took: seconds of training and detection, memory of the process and its GPU, parameters."""
    kilobytes = 1 if sys.platform != "darwin" else 1024
    cost: RunCost = {
        "train_seconds": round(seconds["wall"], 1),
        "train_cpu_seconds": round(seconds["cpu"], 1),
        "detect_seconds": round(seconds["detect"], 1),
        "steps_per_second": round(config.schedule.steps / seconds["wall"], 2) if seconds["wall"] else 0.0,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // kilobytes // 1024,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    if device.type == "cuda":
        cost["gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) >> 20
    return cost
