"""Focal loss: down-weight the easy (anchor, class) pairs.

Lin et al., *Focal Loss for Dense Object Detection* (ICCV 2017), the paper's baseline. One pass over the logits each
way, as for the DR loss.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from drrepro.losses.stream import buffers, check, compute_dtype, not_finite, pieces, sigmoid_


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
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, loss: FocalLoss) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            total = _total(logits, labels, loss)
        scale = 1 / ((labels > 0).sum() + len(labels)).double()
        ctx.save_for_backward(logits, labels, scale)
        ctx.loss = loss
        return (total * scale).to(compute_dtype(logits))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        logits, labels, scale = ctx.saved_tensors
        return _gradient(logits, labels, upstream * scale, ctx.loss), None, None


def _total(logits: Tensor, labels: Tensor, loss: FocalLoss) -> Tensor:
    """Return the sum over all pairs, float64. A negative adds (1 - alpha) p^gamma softplus(x)."""
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    scratch = buffers(logits, 4)
    for piece in pieces(logits, labels):
        x, s, p, _ = _softplus_and_sigmoid(piece.x, [buffer[: len(piece.x)] for buffer in scratch])
        x_pos = x.gather(1, piece.column).double()
        term = _power_(p, loss.gamma).mul_(s)
        term.scatter_(1, piece.column, term.gather(1, piece.column).masked_fill_(piece.positive, 0))
        negatives = torch.mv(term.T, piece.weight[:, 0]).sum(dtype=torch.float64)
        positives = (-functional.logsigmoid(x_pos) * (-x_pos).sigmoid() ** loss.gamma).masked_fill(~piece.positive, 0)
        total += (1 - loss.alpha) * negatives + loss.alpha * positives.sum() + not_finite(piece.x)
    return total


def _gradient(logits: Tensor, labels: Tensor, scale: Tensor, loss: FocalLoss) -> Tensor:
    """Return ``scale`` times d sum / d logits: (1 - alpha) p^gamma (gamma (1 - p) softplus(x) + p) for a negative."""
    dtype = compute_dtype(logits)
    gradient = torch.empty_like(logits)
    scratch = buffers(logits, 4)
    negative_scale = ((1 - loss.alpha) * scale).to(dtype)
    for piece in pieces(logits, labels):
        out = gradient[piece.image, piece.anchors]
        x, s, p, t = _softplus_and_sigmoid(piece.x, [buffer[: len(piece.x)] for buffer in scratch])
        x_pos = x.gather(1, piece.column).double()
        torch.addcmul(s, s, p, value=-1, out=t)  # softplus (1 - p)
        torch.add(p, t, alpha=loss.gamma, out=t)
        t.mul_(_power_(p, loss.gamma))
        total = torch.mul(t, piece.weight * negative_scale, out=out if out.dtype == dtype else t)
        p_pos, rest = x_pos.sigmoid(), (-x_pos).sigmoid()  # rest = 1 - p, without its rounding
        slope = rest**loss.gamma * (loss.gamma * p_pos * functional.logsigmoid(x_pos) - rest)
        positive = (loss.alpha * scale * slope).to(dtype)
        total.scatter_(1, piece.column, torch.where(piece.positive, positive, total.gather(1, piece.column)))
        if total is not out:
            out.copy_(total)
    return gradient


def _softplus_and_sigmoid(logits: Tensor, scratch: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x (the logits in the dtype of ``scratch``), softplus(x), sigmoid(x), and a free buffer.

    softplus(x) = max(x, 0) - log(1 - q) with q = sigmoid(-|x|). log1p is ten times slower than log on a CPU, so the log
    is of the rounded 1 - q, and what the rounding left out, (1 - q) - u, is added to first order.
    """
    a, s, q, u = scratch
    x = logits if logits.dtype == a.dtype else a.copy_(logits)
    torch.abs(x, out=q).neg_().sigmoid_()
    torch.sub(1, q, out=u)
    torch.log(u, out=s)
    s.sub_(u.sub_(1).add_(q)).neg_()
    s.add_(torch.clamp(x, min=0, out=u))
    return x, s, sigmoid_(q, x), u


def _power_(p: Tensor, gamma: float) -> Tensor:
    """Raise ``p`` to ``gamma`` in place."""
    return p.square_() if gamma == 2 else p.pow_(gamma)
