"""Checkpoints: everything that a run needs to go on as if it had not been interrupted."""

import io
from pathlib import Path
from typing import Any

import torch

from drrepro.errors import RunError, UsageError
from drrepro.files import atomic_write
from drrepro.models.retinanet import RetinaNet

NAME = "checkpoint.pt"


def save_checkpoint(
    directory: Path,
    model: RetinaNet,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    step: int,
    seconds: dict[str, float],
) -> None:
    """Write the state after ``step`` steps, atomically. Batches need no state: they are a function of (seed, step)."""
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "rng": torch.get_rng_state(),
        "seconds": seconds,
    }
    packed = io.BytesIO()  # torch.save hides what a full disk says
    torch.save(state, packed)
    atomic_write(directory / NAME, lambda file: file.write(packed.getbuffer()))


def load_checkpoint(directory: Path) -> dict[str, Any] | None:
    """Return the state that `save_checkpoint` wrote, or None where there is none.

    Raises RunError, naming the file, when it is damaged. Nothing is unpickled but tensors and plain containers.
    """
    path = directory / NAME
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {key: state[key] for key in ("step", "model", "optimizer", "scaler", "rng", "seconds")}
    except Exception as error:  # torch.load raises whatever the damaged bytes make it raise
        raise RunError(f"{path}: not a readable checkpoint ({_first_line(error)}); remove it to train again") from None


def load_weights(model: RetinaNet, directory: Path) -> None:
    """Load the weights of a run. Raises UsageError when there are none or they belong to another model."""
    state = load_checkpoint(directory)
    if state is None:
        raise UsageError(f"{directory}: no checkpoint here; weights=run:ID takes the name of a folder of runs")
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise UsageError(f"{directory / NAME}: weights of another model ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
