"""Focal loss: down-weight the easy (anchor, class) pairs.

Lin et al., *Focal Loss for Dense Object Detection* (ICCV 2017), the paper's baseline. One pass over the logits each
way, as for the DR loss.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from drrepro.losses.contract import ClassificationLoss
from drrepro.losses.stream import check, compute_dtype, pair_masks, pieces, put, sigmoid_
from drrepro.schema import LossConfig


@dataclass
class FocalParameters(LossConfig):
    """Those of the paper, as in [M]."""

    gamma: float = 2.0
    alpha: float = 0.25


class FocalLoss(ClassificationLoss):
    """sum of -alpha_t (1 - p_t)^gamma log(p_t) over (anchor, class), divided by positives + images [M]."""

    Parameters = FocalParameters

    def __init__(self, gamma: float = FocalParameters.gamma, alpha: float = FocalParameters.alpha) -> None:
        """Raise ValueError for a negative gamma or an alpha outside [0, 1]."""
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"gamma must be non-negative, got {gamma}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, got {alpha}")
        self.gamma = gamma
        self.alpha = alpha

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, logits: Tensor, labels: Tensor, normalizer: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar: float64 for float64 logits, else float32.

        logits (B, A, K) floating point; labels (B, A) int64: -1 ignored, 0 background, 1..K the class.
        ``normalizer``, a scalar, replaces positives + images where these are a part of a larger batch.
        """
        check(logits, labels)
        if normalizer is None:
            normalizer = (labels > 0).sum() + len(labels)
        return _Focal.apply(logits, labels, normalizer, self)  # type: ignore[no-any-return]

    def share(self, logits: Tensor, labels: Tensor, positives: Tensor, parts: int, **beside: Tensor) -> Tensor:
        """Return a part's share: divided by the positives and images of all parts."""
        return self(logits, labels, positives + parts * len(labels))  # type: ignore[no-any-return]


class _Focal(torch.autograd.Function):
    """The gradient is known but for a factor once the terms are, so one pass yields both."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, normalizer: Tensor, loss: FocalLoss) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            at_once = ctx.needs_input_grad[0] and logits.dtype != torch.float16  # which it would underflow, unscaled
            total, gradient = _total_and_gradient(logits, labels, normalizer, loss, at_once)
        ctx.save_for_backward(logits, labels, normalizer)
        ctx.loss, ctx.gradient = loss, gradient
        return total.to(compute_dtype(logits))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None, None]:
        gradient, ctx.gradient = ctx.gradient, None  # it is handed on, so a second backward needs its own
        if gradient is None:
            logits, labels, normalizer = ctx.saved_tensors
            _, gradient = _total_and_gradient(logits, labels, normalizer / upstream, ctx.loss, with_gradient=True)
            return gradient, None, None, None
        return gradient.mul_(upstream), None, None, None


def _total_and_gradient(
    logits: Tensor, labels: Tensor, normalizer: Tensor, loss: FocalLoss, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the loss (float64) and, if asked for, its gradient.

    A negative adds (1 - alpha) p^gamma s, s = softplus(x), of slope (1 - alpha) p^gamma (gamma (1 - p) s + p).
    """
    dtype = compute_dtype(logits)
    weight, positive, column = pair_masks(labels, dtype)
    x_pos = logits.gather(2, column).to(dtype)
    n_pos, log_p_pos = (-x_pos).sigmoid(), functional.logsigmoid(x_pos)
    scale = 1 / normalizer.double()
    weight *= (1 - loss.alpha) * scale
    scale_pos = (loss.alpha * scale).to(dtype) * positive * _power_(n_pos.clone(), loss.gamma)
    gradient_pos = scale_pos * (loss.gamma * (1 - n_pos) * log_p_pos - n_pos)
    gradient = torch.empty_like(logits) if with_gradient else None
    sums = [weight.new_zeros(())]  # and 0 or, for an infinite logit, which its score would hide, NaN
    tensors = logits, logits if gradient is None else gradient, weight, 1 - positive, column, gradient_pos
    for _, (x, out, counts, keep, here, own_gradient_pos), (p, n, s, t) in pieces(*tensors, scratch=4):
        _sigmoids_and_softplus(x.to(dtype), p, n, s, t)
        torch.addcmul(p, n, s, value=loss.gamma, out=t)
        put(_power_(p, loss.gamma).mul_(counts), here, keep)
        sums += [s.mul_(p).sum(), 0 * x.sum(dtype=dtype)]
        if gradient is not None:
            own = torch.mul(t, p, out=out if out.dtype == dtype else t)
            own.scatter_add_(1, here, own_gradient_pos)  # which p, 0 at positives, has left at 0
            if own is t:
                out.copy_(t)
    return torch.stack(sums).sum(dtype=torch.float64) - (scale_pos * log_p_pos).nansum(dtype=torch.float64), gradient


def _sigmoids_and_softplus(x: Tensor, p: Tensor, n: Tensor, s: Tensor, t: Tensor) -> None:
    """Fill p = sigmoid(x), n = 1 - p and s = softplus(x) = max(x, 0) - log(max(p, n)); t is scratch.

    log1p is up to ten times slower than log on a CPU, so the log is of the rounded n, and (1 - n) - p, which is what
    the rounding left out, is added to first order.
    """
    sigmoid_(p, x)
    torch.sub(1, p, out=n)
    torch.log(torch.maximum(p, n, out=t), out=t)
    torch.clamp(x, min=0, out=s).sub_(t)
    s.add_(torch.sub(1, n, out=t).sub_(p))


def _power_(p: Tensor, gamma: float) -> Tensor:
    """Raise ``p`` to ``gamma`` in place."""
    return p.square_() if gamma == 2 else p.pow_(gamma)
