"""Focal loss: down-weight the easy (anchor, class) pairs.

Lin et al., *Focal Loss for Dense Object Detection* (ICCV 2017), the paper's baseline. One pass over the logits each
way, as for the DR loss.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from drrepro.losses.stream import buffers, check, compute_dtype, nan_if_infinite, pair_masks, pieces, put, sigmoid_


class FocalLoss(nn.Module):
    """sum of -alpha_t (1 - p_t)^gamma log(p_t) over (anchor, class), divided by positives + images."""

    def __init__(self, gamma: float = 2.0, alpha: float = 0.25) -> None:
        """Raise ValueError for a negative gamma or an alpha outside [0, 1]."""
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"gamma must be non-negative, got {gamma}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, got {alpha}")
        self.gamma = gamma
        self.alpha = alpha

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar: float64 for float64 logits, else float32.

        logits (B, A, K) floating point; labels (B, A) int64: -1 ignored, 0 background, 1..K the class.
        """
        check(logits, labels)
        return _Focal.apply(logits, labels, self)  # type: ignore[no-any-return]


class _Focal(torch.autograd.Function):
    """The gradient is known but for a factor once the terms are, so one pass yields both."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, loss: FocalLoss) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            total, gradient = _total_and_gradient(logits, labels, loss, ctx.needs_input_grad[0])
        ctx.save_for_backward(logits, labels)
        ctx.loss, ctx.gradient = loss, gradient
        return total.to(compute_dtype(logits))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        gradient, ctx.gradient = ctx.gradient, None  # it is handed on, so a second backward needs its own
        if gradient is None:
            logits, labels = ctx.saved_tensors
            _, gradient = _total_and_gradient(logits, labels, ctx.loss, with_gradient=True)
            assert gradient is not None
        return gradient.mul_(upstream), None, None


def _total_and_gradient(
    logits: Tensor, labels: Tensor, loss: FocalLoss, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the loss (float64) and, if asked for, its gradient.

    A negative adds (1 - alpha) p^gamma softplus(x), of slope (1 - alpha) p^gamma (gamma (1 - p) softplus(x) + p).
    """
    dtype = compute_dtype(logits)
    weight, positive, column = pair_masks(labels, dtype)
    x_pos = logits.gather(2, column).to(dtype)
    n_pos, log_p_pos = (-x_pos).sigmoid(), torch.maximum(x_pos.sigmoid().log(), x_pos.clamp(max=-_far(dtype)))
    scale = 1 / (positive.sum() + len(labels)).double()
    weight *= (1 - loss.alpha) * scale
    scale_pos = (loss.alpha * scale).to(dtype) * positive * _power_(n_pos.clone(), loss.gamma)
    gradient_pos = scale_pos * (loss.gamma * (1 - n_pos) * log_p_pos - n_pos)
    sums = []
    gradient = torch.empty_like(logits) if with_gradient else None
    scratch = buffers(logits, 4)
    zero = weight.new_zeros(())
    for image, own in pieces(logits):
        n, p, minus_s, t = (buffer[: own.stop - own.start] for buffer in scratch)
        x = logits[image, own].to(dtype)
        _softplus_and_sigmoids(x, n, p, minus_s, t)
        here = column[image, own]
        torch.addcmul(p, n, minus_s, value=-loss.gamma, out=t)  # gamma (1 - p) softplus(x) + p
        put(_power_(p, loss.gamma).mul_(weight[image, own]), here, zero, positive[image, own])
        sums.append(minus_s.mul_(p).sum() + nan_if_infinite(x))
        if gradient is not None:
            out = gradient[image, own]
            own_gradient = torch.mul(t, p, out=out if out.dtype == dtype else t)
            own_gradient.scatter_add_(1, here, gradient_pos[image, own])  # which p, 0 at positives, has left at 0
            if own_gradient is t:
                out.copy_(t)
    negatives = -torch.stack(sums).sum(dtype=torch.float64) if sums else 0.0
    return negatives - (scale_pos * log_p_pos).nansum(dtype=torch.float64), gradient


def _softplus_and_sigmoids(x: Tensor, n: Tensor, p: Tensor, minus_s: Tensor, t: Tensor) -> None:
    """Fill n = sigmoid(-x), p = sigmoid(x) and minus_s = log(n) = -softplus(x); t is scratch.

    log1p is ten times slower than log on a CPU, so the log is of the rounded n, and (1 - n) - p, which is what the
    rounding left out, is added to first order. Far out softplus(x) is x, but the log of n, which underflows, is not.
    """
    torch.neg(x, out=t)
    torch.sigmoid(t, out=n)
    sigmoid_(p, x)
    torch.log(n, out=minus_s)
    torch.maximum(minus_s, t.clamp_(max=-_far(x.dtype)), out=minus_s)
    minus_s.add_(torch.sub(1, n, out=t).sub_(p))


def _far(dtype: torch.dtype) -> int:
    """Return where exp(-x) beside 1 is lost in rounding: beyond it softplus(x) is x."""
    return 37 if dtype == torch.float64 else 17


def _power_(p: Tensor, gamma: float) -> Tensor:
    """Raise ``p`` to ``gamma`` in place."""
    return p.square_() if gamma == 2 else p.pow_(gamma)
