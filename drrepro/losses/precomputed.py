"""Losses whose gradient is known together with their value."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Computation = Callable[[Tensor], tuple[Tensor, Tensor]]  # logits to (value, gradient in the dtype of computation)


class Precomputed(torch.autograd.Function):
    """``Precomputed.apply(logits, compute)``: the value of ``compute(logits)``, and its gradient in the backward."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, compute: Computation) -> Tensor:
        """Return the value."""
        with torch.autocast(logits.device.type, enabled=False):
            value, ctx.gradient = compute(logits)
        ctx.save_for_backward(logits)
        ctx.compute = compute
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        """Return the gradient, computed again where an earlier backward has handed it on."""
        gradient, ctx.gradient = ctx.gradient, None
        (logits,) = ctx.saved_tensors
        if gradient is None:
            _, gradient = ctx.compute(logits)
        return gradient.mul_(upstream).to(logits.dtype), None
