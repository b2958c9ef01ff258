"""What both losses ask of their arguments, and the pairs that labels stand for."""

import torch
from torch import Tensor


def check(logits: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless logits are (B, A, K) floating point and labels (B, A) int64 on the same device."""
    if logits.ndim != 3 or not logits.is_floating_point():
        raise ValueError(f"logits must be floating point of shape (B, A, K), got {logits.dtype} {tuple(logits.shape)}")
    if labels.dtype != torch.int64 or labels.shape != logits.shape[:2]:
        expected = tuple(logits.shape[:2])
        raise ValueError(f"labels must be int64 of shape {expected}, got {labels.dtype} {tuple(labels.shape)}")


def pairs(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return the (B, A, K) masks of positive and negative (anchor, class) pairs.

    A positive is an anchor with its class; a negative any other pair of an anchor that is not ignored (-1).
    """
    positive = labels[..., None] == torch.arange(1, classes + 1, device=labels.device)
    return positive, ~positive & (labels >= 0)[..., None]
