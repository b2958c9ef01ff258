"""Checkpoints: everything that a run needs to go on as if it had not been interrupted."""

import io
import logging
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor, nn

from drrepro.errors import RunError
from drrepro.files import atomic_write, remove_leftovers
from drrepro.models.retinanet import RetinaNet
from drrepro.runs.folder import RunFolder
from drrepro.shape import misfit

SHAPE = {
    "step": int,
    "model": {},
    "loss": {},
    "optimizer": {"state": {}},
    "scaler": {},
    "rng": Tensor,
    "seconds": {"wall": float, "cpu": float},
}

log = logging.getLogger(__name__)


def save_checkpoint(
    directory: Path,
    model: RetinaNet,
    loss: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    step: int,
    seconds: dict[str, float],
) -> None:
    """Write the state after ``step`` steps, atomically, and keep the one before.

    Batches need no state: they are a function of (seed, step).
    """
    state = {
        "step": step,
        "model": model.state_dict(),
        "loss": loss.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "rng": torch.get_rng_state(),
        "seconds": seconds,
    }
    packed = io.BytesIO()  # torch.save hides what a full disk says
    torch.save(state, packed)
    last, before = RunFolder(directory).checkpoints
    remove_leftovers(last)
    if last.is_file():
        last.replace(before)
    atomic_write(last, lambda file: file.write(packed.getbuffer()))


def load_checkpoint(directory: Path) -> dict[str, Any] | None:
    """Return the last state that `save_checkpoint` wrote, or None where there is none.

    A damaged one is said and the one before taken. Raises RunError, naming the file, when that does not help. Nothing
    is unpickled but tensors and plain containers.
    """
    damage = ""
    for path in RunFolder(directory).checkpoints:
        if path.is_file():
            try:
                with ZipFile(path) as packed:
                    if damaged := packed.testzip():  # torch.load does not look at the checksums
                        raise BadZipFile(f"{damaged} is damaged")
                state = torch.load(path, map_location="cpu", weights_only=True)
                state = {"loss": {}, **state}  # which those written before a loss had a state lack
                if wrong := misfit(state, SHAPE) or ("step is negative" if state["step"] < 0 else ""):
                    raise ValueError(wrong)
                return {key: state[key] for key in SHAPE}
            except Exception as error:  # torch.load raises whatever the damaged bytes make it raise
                damage = f"{path}: not a readable checkpoint ({_first_line(error)})"
                log.warning("%s; looking for the one before", damage)
    if damage:
        raise RunError(f"{damage}; remove it to train again")
    return None


def resume(
    directory: Path,
    model: RetinaNet,
    loss: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> tuple[int, dict[str, float]]:
    """Load the last state, if any; return the steps done and the seconds spent on them.

    Raises RunError, naming the folder, for one that is not of this model, loss and optimizer.
    """
    state = load_checkpoint(directory)
    if state is None:
        return 0, {"wall": 0.0, "cpu": 0.0}
    try:
        model.load_state_dict(state["model"])
        loss.load_state_dict(state["loss"])
        groups = optimizer.state_dict()["param_groups"]  # rates and decays are the configuration's
        optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        _check_optimizer(optimizer)
        scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
    except Exception as error:  # torch raises whatever the contents make it raise
        why = f"is not of this model, loss and optimizer ({_first_line(error)})"
        raise RunError(f"{RunFolder(directory).checkpoint}: {why}; remove it to train again") from None
    return state["step"], state["seconds"]


def _check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError for what the optimizer would stumble over at its next step."""
    needed = {"step", "exp_avg", "exp_avg_sq"} if isinstance(optimizer, torch.optim.AdamW) else {"momentum_buffer"}
    for parameter, kept in optimizer.state.items():
        if kept and kept.keys() != needed:
            raise ValueError(f"the optimizer keeps {', '.join(kept)}")
        for name, value in kept.items():
            if not isinstance(value, Tensor) or value.shape != (() if name == "step" else parameter.shape):
                raise ValueError(f"{name} of a parameter of shape {tuple(parameter.shape)}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
