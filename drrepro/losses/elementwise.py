"""Losses that are a sum over (anchor, class) pairs, in one pass over the logits each way.

A negative adds w p^gamma s, s = softplus(x) = -log(1 - p), in all of them, so the pass over millions of negatives is
written once; what a positive adds is the loss's own, over one logit an anchor. The sum is divided by positives + images
[M], so that losses differ in nothing else.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from drrepro.losses.contract import ClassificationLoss, Normalizer
from drrepro.losses.stream import (
    Pairs,
    check,
    check_ious,
    compute_dtype,
    drop_positives_,
    pieces,
    sigmoid_,
)


class ElementwiseLoss(ClassificationLoss):
    """The sum of `positives` and of ``negative_weight`` p^``gamma`` s, divided by positives + images [M]."""

    gamma: float
    negative_weight: float

    def positives(self, x: Tensor, positive: Tensor, scale: Tensor, ious: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what anchors add to the loss, and its slope: both times ``scale``, 0 where ``positive`` is.

        All (N,): x, the logit of an anchor's class; positive: 1 of a positive, else 0.
        """
        raise NotImplementedError

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self, logits: Tensor, labels: Tensor, normalizer: Tensor | None = None, ious: Tensor | None = None
    ) -> Tensor:
        """Return the loss, a scalar: float64 for float64 logits, else float32.

        logits (B, A, K) floating point; labels (B, A) int64: -1 ignored, 0 background, 1..K the class; ious (B, A) of
        predicted and matched boxes, where the loss needs them. ``normalizer``, a scalar or (B,), replaces
        positives + images where these are a part of a larger batch.
        """
        check(logits, labels)
        if self.needs_ious:
            check_ious(ious, labels)
        if normalizer is None:
            normalizer = (labels > 0).sum() + len(labels)
        return _Elementwise.apply(logits, labels, normalizer, ious, self)  # type: ignore[no-any-return]

    def share(self, logits: Tensor, labels: Tensor, normalizer: Normalizer, passes: int, **beside: Tensor) -> Tensor:
        """Return a pass's share: divided by the positives and images that are counted together."""
        divisor = (normalizer.positives + normalizer.images) * normalizer.parts
        return self(logits, labels, divisor, **beside)  # type: ignore[no-any-return]


class _Elementwise(torch.autograd.Function):
    """The gradient is known but for a factor once the terms are, so one pass yields both."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, normalizer: Tensor, ious: Tensor | None, loss: ElementwiseLoss
    ) -> Tensor:
        """Return the loss, a scalar of the dtype that it is computed in."""
        logits = logits.contiguous()
        with torch.autocast(logits.device.type, enabled=False):
            at_once = ctx.needs_input_grad[0] and logits.dtype != torch.float16  # which it would underflow, unscaled
            total, gradient = _total_and_gradient(logits, labels, normalizer, ious, loss, at_once)
        ctx.save_for_backward(logits, labels, normalizer, ious)
        ctx.loss, ctx.gradient = loss, gradient
        return total.to(compute_dtype(logits))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        """Return the gradient (B, A, K) in the logits."""
        gradient, ctx.gradient = ctx.gradient, None  # it is handed on, so a second backward needs its own
        if gradient is None:
            logits, labels, normalizer, ious = ctx.saved_tensors
            _, gradient = _total_and_gradient(logits, labels, normalizer / upstream, ious, ctx.loss, with_gradient=True)
            return gradient, None, None, None, None
        return gradient.mul_(upstream), None, None, None, None


def _total_and_gradient(
    logits: Tensor,
    labels: Tensor,
    normalizer: Tensor,
    ious: Tensor | None,
    loss: ElementwiseLoss,
    with_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss (float64) and, if asked for, its gradient.

    A negative adds w p^gamma s, of slope w p^gamma (gamma (1 - p) s + p).
    """
    dtype = compute_dtype(logits)
    pairs = Pairs.of(logits, labels)
    scale = (1 / normalizer.double()).to(dtype).view(-1, 1, 1).expand_as(pairs.weight)
    own_scale = scale.flatten().index_select(0, pairs.anchor)
    own_ious = None if ious is None else ious.flatten().index_select(0, pairs.anchor).to(dtype)
    terms_pos, gradient_pos = loss.positives(pairs.x, pairs.positive, own_scale, own_ious)
    weight = pairs.weight.mul_(loss.negative_weight * scale)
    gradient = torch.empty_like(logits) if with_gradient else None
    sums, of_logits = [weight.new_zeros(())], [weight.new_zeros(())]  # infinite logits, which their scores would hide
    tensors = logits, logits if gradient is None else gradient, weight, pairs.keep, pairs.column
    for _, (x, out, counts, keep, here), (p, n, s, t) in pieces(*tensors, scratch=4):
        x = x if x.dtype == dtype else s.copy_(x)
        of_logits.append(x.sum())
        complement_and_softplus(x, sigmoid_(p, x), n, s, t)
        torch.addcmul(p, n, s, value=loss.gamma, out=t)
        drop_positives_(power_(p, loss.gamma).mul_(counts), here, keep)
        sums.append(s.mul_(p).sum())
        if gradient is not None:
            torch.mul(t, p, out=out) if out.dtype == dtype else out.copy_(t.mul_(p))
    if gradient is not None:  # which p, 0 there, has left at 0
        gradient.view(-1).index_add_(0, pairs.place, gradient_pos.to(gradient.dtype))
    terms_pos = torch.where(pairs.positive > 0, terms_pos, 0.0)  # of others an infinite logit gives NaN
    not_finite = 0 * torch.stack(of_logits).sum(dtype=torch.float64)  # 0, or NaN
    return torch.stack(sums).sum(dtype=torch.float64) + terms_pos.sum(dtype=torch.float64) + not_finite, gradient


def complement_and_softplus(x: Tensor, p: Tensor, n: Tensor, s: Tensor, t: Tensor) -> None:
    """Fill n = 1 - p and s = softplus(x) = max(x, 0) - log(max(p, n)), where p = sigmoid(x); t is scratch.

    log1p is up to ten times slower than log on a CPU, so the log is of the rounded n, and (1 - n) - p, which is what
    the rounding left out, is added to first order.
    """
    torch.sub(1, p, out=n)
    torch.log(torch.maximum(p, n, out=t), out=t)
    torch.clamp(x, min=0, out=s).sub_(t)
    s.add_(torch.sub(1, n, out=t).sub_(p))


def power_(p: Tensor, gamma: float) -> Tensor:
    """Raise ``p`` to ``gamma`` in place."""
    return p.square_() if gamma == 2 else p.pow_(gamma)
