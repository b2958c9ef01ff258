"""Where a run computes."""

import os

import torch

from drrepro.distributed import world
from drrepro.errors import UsageError


def pick_device(name: str) -> torch.device:
    """Return the device; ``auto`` is cuda where there is one: this rank's own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and world() > 1:
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"runtime.device={name}: {str(error).splitlines()[0]}") from None
    return device
