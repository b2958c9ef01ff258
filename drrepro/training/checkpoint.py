"""Checkpoints: everything that a run needs to go on as if it had not been interrupted."""

import io
import logging
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from drrepro.errors import RunError
from drrepro.files import atomic_write, remove_leftovers
from drrepro.models.retinanet import RetinaNet

NAME, BEFORE = "checkpoint.pt", "checkpoint.before.pt"  # the last one, and the last but one in case that is damaged

log = logging.getLogger(__name__)


def save_checkpoint(
    directory: Path,
    model: RetinaNet,
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
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "rng": torch.get_rng_state(),
        "seconds": seconds,
    }
    packed = io.BytesIO()  # torch.save hides what a full disk says
    torch.save(state, packed)
    remove_leftovers(directory / NAME)
    if (directory / NAME).is_file():
        (directory / NAME).replace(directory / BEFORE)
    atomic_write(directory / NAME, lambda file: file.write(packed.getbuffer()))


def load_checkpoint(directory: Path) -> dict[str, Any] | None:
    """Return the last state that `save_checkpoint` wrote, or None where there is none.

    A damaged one is said and the one before taken. Raises RunError, naming the file, when that does not help. Nothing
    is unpickled but tensors and plain containers.
    """
    damage = ""
    for path in (directory / NAME, directory / BEFORE):
        if path.is_file():
            try:
                with ZipFile(path) as packed:
                    if damaged := packed.testzip():  # torch.load does not look at the checksums
                        raise BadZipFile(f"{damaged} is damaged")
                state = torch.load(path, map_location="cpu", weights_only=True)
                return {key: state[key] for key in ("step", "model", "optimizer", "scaler", "rng", "seconds")}
            except Exception as error:  # torch.load raises whatever the damaged bytes make it raise
                damage = f"{path}: not a readable checkpoint ({_first_line(error)})"
                log.warning("%s; looking for the one before", damage)
    if damage:
        raise RunError(f"{damage}; remove it to train again")
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
