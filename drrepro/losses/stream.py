"""What both losses share: checks of their arguments, and a walk over the logits in pieces that stay in cache.

Nothing here makes a GPU wait: no value is read back, no index is computed from data.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

# Elements of a piece: few enough that some float32 buffers of them stay in cache, enough that calls cost little.
PIECE = {"cpu": 2**18}
LARGE_PIECE = 2**24


def check(logits: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless logits are floating point (B, A, K) and labels int64 (B, A) on their device, in -1..K.

    On a GPU labels out of range stop the device instead, since looking at them would make it wait.
    """
    if logits.ndim != 3 or not logits.is_floating_point():
        raise ValueError(f"logits must be floating point of shape (B, A, K), got {logits.dtype} {tuple(logits.shape)}")
    shape, classes = tuple(logits.shape[:2]), logits.shape[2]
    if labels.dtype != torch.int64 or labels.shape != shape:
        raise ValueError(f"labels must be int64 of shape {shape}, got {labels.dtype} {tuple(labels.shape)}")
    if labels.device != logits.device:
        raise ValueError(f"labels must be on {logits.device}, as the logits are, got {labels.device}")
    if labels.device.type != "cpu":
        torch._assert_async(((labels >= -1) & (labels <= classes)).all())
        return
    values = labels.numpy()
    for value in (values.min(initial=0), values.max(initial=0)):
        if not -1 <= value <= classes:
            raise ValueError(f"labels must be from -1 to {classes}, got {value}")


def compute_dtype(logits: Tensor) -> torch.dtype:
    """Return the dtype to compute in: float64 for float64, float32 for everything else."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def pair_masks(labels: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `labels` (B, A) say of the (anchor, class) pairs, each (B, A, 1).

    weight (``dtype``): 0 for ignored anchors, else 1. positive (bool). column (int64): of a positive its class, from
    0; of any other 0, a place like every other.
    """
    y = labels[..., None]
    return (y >= 0).to(dtype), y > 0, (y - 1).clamp_(min=0)


def pieces(logits: Tensor) -> Iterator[tuple[int, slice]]:
    """Walk over the anchors in pieces: yield image and anchors."""
    rows = rows_of(logits)
    for image in range(logits.shape[0]):
        for start in range(0, logits.shape[1], rows):
            yield image, slice(start, min(start + rows, logits.shape[1]))


def rows_of(logits: Tensor) -> int:
    """Return how many anchors make a piece."""
    return max(1, PIECE.get(logits.device.type, LARGE_PIECE) // max(1, logits.shape[2]))


def buffers(logits: Tensor, count: int) -> list[Tensor]:
    """Return ``count`` (r, K) tensors, r the anchors of the largest piece, to be overwritten for each piece."""
    rows = min(rows_of(logits), logits.shape[1])
    return [logits.new_empty(rows, logits.shape[2], dtype=compute_dtype(logits)) for _ in range(count)]


def sigmoid_(out: Tensor, x: Tensor) -> Tensor:
    """Write sigmoid(x) into ``out``, computed in its dtype."""
    return torch.sigmoid(x, out=out) if x.dtype == out.dtype else out.copy_(x).sigmoid_()


def put(values: Tensor, column: Tensor, new: Tensor, where: Tensor) -> None:
    """Replace values[a, column[a]] by ``new``[a] in the rows where ``where`` holds; all but ``values`` are (r, 1)."""
    values.scatter_(1, column, torch.where(where, new, values.gather(1, column)))


def nan_if_infinite(x: Tensor) -> Tensor:
    """Return 0 if all of ``x`` is finite, else NaN: a saturated score would hide an infinite logit."""
    return 0.0 * x.sum(dtype=compute_dtype(x))
