"""What the losses share: checks of their arguments, and a walk over the logits in pieces that stay in cache.

Nothing here makes a GPU wait, but where it says so: no value is read back, no index is computed from data.
"""

from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor

# Elements of a piece, on a CPU for each thread: few enough that some float32 buffers of them stay in its cache, enough
# that calls cost little.
CPU_PIECE = 2**16
PIECE = 2**24
Places = tuple[Tensor, Tensor, Tensor]


def check(logits: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless logits are floating point (B, A, K) and labels int64 (B, A) on their device, in -1..K.

    On a GPU labels out of range stop the device instead, since looking at them would make it wait.
    """
    if logits.ndim != 3 or not logits.is_floating_point() or not logits.shape[2]:
        raise ValueError(
            f"logits must be floating point of shape (B, A, K), K > 0, got {logits.dtype} {tuple(logits.shape)}"
        )
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


def check_ious(ious: Tensor | None, labels: Tensor) -> None:
    """Raise ValueError unless there are ious, of the shape of the labels."""
    if ious is None or ious.shape != labels.shape:
        found = None if ious is None else tuple(ious.shape)
        raise ValueError(f"ious must be of shape {tuple(labels.shape)}, got {found}")


def finite(logits: Tensor) -> bool:
    """Return whether all of them are, for which a GPU waits."""
    if not logits.numel():
        return True
    lowest, highest = torch.aminmax(logits.detach())
    return bool(lowest.isfinite() & highest.isfinite())


def compute_dtype(logits: Tensor) -> torch.dtype:
    """Return the dtype to compute in: float64 for float64, float32 for everything else."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def pair_masks(labels: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `labels` (B, A) say of the (anchor, class) pairs, each (B, A, 1).

    weight (``dtype``): 0 for ignored anchors, else 1. positive (``dtype``): 1 for positives, else 0. column (int64):
    of a positive its class, from 0; of any other 0, a place like every other.
    """
    y = labels[..., None].to(dtype)
    return y.clamp(-1, 0).add_(1), y.clamp_(0, 1), (labels[..., None] - 1).clamp_(min=0)


def maybe_positive(labels: Tensor) -> Tensor:
    """Return which of the B * A anchors of ``labels`` (B, A) may be positive, (N,) int64, each once and in order.

    On a CPU those that are; on a GPU, which would wait for their number, all: so what is computed of them needs a mask.
    """
    if labels.is_cpu:
        return (labels.flatten() > 0).nonzero()[:, 0]
    return torch.arange(labels.numel(), device=labels.device)


class Pairs(NamedTuple):
    """What a loss needs of logits (B, A, K) and labels (B, A).

    weight, keep, column (B, A, 1): see `pair_masks`; keep is 0 of positives, else 1. Of the N anchors that may be
    positive, see `maybe_positive`, (N,): anchor, of B * A; place, of the logits; positive, 1 or 0; x, the logit.
    """

    weight: Tensor
    keep: Tensor
    column: Tensor
    anchor: Tensor
    place: Tensor
    positive: Tensor
    x: Tensor

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> Self:
        """Return those of contiguous logits."""
        weight, positive, column = pair_masks(labels, compute_dtype(logits))
        anchor = maybe_positive(labels)
        of_anchor, own_column = (t.flatten().index_select(0, anchor) for t in (positive, column))
        place = anchor * logits.shape[2] + own_column
        x = logits.flatten().index_select(0, place).to(weight.dtype)
        return cls(weight, 1 - positive, column, anchor, place, of_anchor, x)


def positive_places(labels: Tensor) -> Places:
    """Return the image, anchor and class, from 0, of each positive, (P,) each, for whose number a GPU waits."""
    image, anchor = (labels > 0).nonzero(as_tuple=True)
    return image, anchor, labels[image, anchor] - 1


def pieces(*tensors: Tensor, scratch: int) -> Iterator[tuple[int, tuple[Tensor, ...], list[Tensor]]]:
    """Walk over tensors (B, A, ...), the logits first, in pieces of r anchors that stay in cache.

    Yield the image, a view (r, ...) of each tensor, and ``scratch`` tensors (r, K) that each piece overwrites.
    """
    logits = tensors[0]
    size = CPU_PIECE * torch.get_num_threads() if logits.device.type == "cpu" else PIECE
    rows = max(1, size // logits.shape[2])
    shape = min(rows, logits.shape[1]), logits.shape[2]
    buffers = [logits.new_empty(shape, dtype=compute_dtype(logits)) for _ in range(scratch)]
    for image in range(len(logits)):
        for start in range(0, logits.shape[1], rows):
            views = tuple(tensor[image, start : start + rows] for tensor in tensors)
            r = len(views[0])
            yield image, views, buffers if r == shape[0] else [buffer[:r] for buffer in buffers]


def sigmoid_(out: Tensor, x: Tensor) -> Tensor:
    """Write sigmoid(x) into ``out``, computed in its dtype."""
    return torch.sigmoid(x, out=out) if x.dtype == out.dtype else out.copy_(x).sigmoid_()


def drop_positives_(values: Tensor, column: Tensor, keep: Tensor) -> Tensor:
    """Multiply, in place, values[a, column[a]] by ``keep``[a], which is 0 of positives and else 1: (r, 1) both."""
    return values.scatter_reduce_(1, column, keep, "prod")
