"""DR loss: rank the distribution of foreground scores above that of background scores.

*DR Loss: Improving Object Detection by Distributional Ranking*, supplementary, Sec. 1. Scores lie in [0, 1], so
exp(p / lambda-) is bounded and one pass over the logits yields every sum of the forward. The gradient has a closed
form in the scores: the forward leaves them in the buffer that the backward, one more pass, turns into the gradient.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from drrepro.losses.contract import ClassificationLoss
from drrepro.losses.stream import Pairs, check, compute_dtype, drop_positives_, pieces, sigmoid_
from drrepro.schema import LossConfig, require

MAX_H = 500.0  # lambda- = 0.1 / ln(h), so exp(1 / lambda-) = h^10: float32 must hold the sum of as many as there are
MIN_POS_LAMBDA = 0.01


@dataclass
class DRParameters(LossConfig):
    """Those of Sec. 1, with the values of the authors' release [R]."""

    pos_lambda: float = 1.0
    h: float = 3.5  # lambda- = 0.1 / ln(h)
    L: float = 6.0
    margin: float = 0.5
    tau: float = 4.0  # weight on the whole loss
    # What one distribution covers: image [S], and the mean over images [I]; or batch [R]: the images of one pass of one
    # GPU, so that accumulate and ranks change the loss.
    scope: str = "image"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.scope != "global", "loss.scope", self.scope, "must be image or batch")  # the loop has no group


class DRLoss(ClassificationLoss):
    """tau * mean_i l(P-_i - P+_i + margin), with l(z) = log(1 + exp(L z)) / L.

    P+ and P- are the expected scores of the positives and the negatives under distributions that lean towards
    the hard ones: q+ ~ exp(-p / lambda+) and q- ~ exp(p / lambda-), lambda- = 0.1 / ln(h). Scores p are the sigmoids
    of the logits, one binary problem for each (anchor, class).

    ``scope`` says what i runs over: ``image``, the images, as in Sec. 1; ``batch``, all images make one distribution,
    as the authors' release computes it for the images of one GPU; ``global``, those of all ranks of ``group`` do, and
    the gradient is that of the loss of the concatenated batch with respect to this rank's logits.
    """

    Parameters = DRParameters

    def __init__(
        self,
        pos_lambda: float = DRParameters.pos_lambda,
        h: float = DRParameters.h,
        L: float = DRParameters.L,
        margin: float = DRParameters.margin,
        tau: float = DRParameters.tau,
        scope: str = DRParameters.scope,
        group: Any = None,
    ) -> None:
        """Raise ValueError, naming the parameter, for one out of range."""
        super().__init__()
        if not 1 < h <= MAX_H:
            raise ValueError(f"h must exceed 1 and be at most {MAX_H:g}, got {h}")
        if not pos_lambda >= MIN_POS_LAMBDA:
            raise ValueError(f"pos_lambda must be at least {MIN_POS_LAMBDA}, got {pos_lambda}")
        if not L > 0:
            raise ValueError(f"L must be positive, got {L}")
        if not tau >= 0:
            raise ValueError(f"tau must not be negative, got {tau}")
        if scope not in ("image", "batch", "global"):
            raise ValueError(f"scope must be image, batch or global, got {scope!r}")
        self.pos_lambda, self.neg_lambda = pos_lambda, 0.1 / math.log(h)
        self.L, self.margin, self.tau = L, margin, tau
        self.scope, self.group = scope, group

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar: float64 for float64 logits, else float32.

        logits (B, A, K) floating point; labels (B, A) int64: -1 ignored, 0 background, 1..K the class.
        Without positives P+ is 1; without negatives P- is 0; an image whose anchors are all ignored adds 0.
        """
        check(logits, labels)
        return _Ranking.apply(logits, labels, self)  # type: ignore[no-any-return]


class _Ranking(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, loss: DRLoss) -> Tensor:
        """Return the loss, a scalar of the dtype that it is computed in."""
        keep_scores = ctx.needs_input_grad[0] and logits.dtype == compute_dtype(logits)
        logits = logits.contiguous()
        scores = torch.empty_like(logits) if keep_scores else None
        with torch.autocast(logits.device.type, enabled=False):
            pairs = Pairs.of(logits, labels)
            sums = _sums(logits, pairs, loss, scores)
        if loss.scope != "image":
            sums = sums.sum(0, keepdim=True)
        if loss.scope == "global":
            torch.distributed.all_reduce(sums, group=loss.group)
        Z_neg, M_neg, Z_pos, M_pos, nan = sums.unbind(1)  # (D,) float64, D distributions
        P_neg = torch.where(Z_neg > 0, M_neg / Z_neg, 0.0)
        P_pos = torch.where(Z_pos > 0, M_pos / Z_pos, 1.0)
        z = P_neg - P_pos + loss.margin
        counted = (Z_neg > 0) | (Z_pos > 0)
        value = torch.where(counted, functional.softplus(loss.L * z) / loss.L, 0.0) + nan
        share = loss.tau / max(1, len(z))
        slope = share * (loss.L * z).sigmoid() * counted  # d loss / d z = tau / (D (1 + exp(-L z)))
        slope_neg = torch.where(Z_neg > 0, slope / Z_neg, 0.0)  # q = weight / Z
        slope_pos = torch.where(Z_pos > 0, slope / Z_pos, 0.0)
        ctx.save_for_backward(logits, *pairs, torch.stack([slope_neg, slope_pos, P_neg, P_pos]))
        ctx.loss, ctx.scores = loss, scores
        return (loss.tau * value.sum() / max(1, len(z))).to(compute_dtype(logits))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient (B, A, K) in the logits."""
        logits, *pairs, saved = ctx.saved_tensors
        scores, ctx.scores = ctx.scores, None  # they are overwritten, so a second backward computes its own
        saved = saved.expand(4, len(logits))
        return _gradient(logits, Pairs(*pairs), saved, upstream, ctx.loss, scores), None, None


def _weight_(out: Tensor, p: Tensor, neg_lambda: float) -> Tensor:
    """Write exp(p / lambda-) into ``out``: by exp2, which on some CPUs is three times faster than exp."""
    return torch.mul(p, 1 / (neg_lambda * math.log(2)), out=out).exp2_()


def _sums(logits: Tensor, pairs: Pairs, loss: DRLoss, scores: Tensor | None) -> Tensor:
    """Return (B, 5) float64 sums over each image; fill ``scores``.

    The sums: Z- = sum w, M- = sum w p with w = exp(p / lambda-); Z+ and M+ with w = exp(-p / lambda+); 0, or NaN if
    a logit is infinite, which its score would hide.
    """
    sums: list[Tensor] = []
    tensors = logits, logits if scores is None else scores, pairs.weight, pairs.keep, pairs.column
    for _, (x, out, counts, keep, here), (p, w) in pieces(*tensors, scratch=2):
        p = sigmoid_(p if scores is None else out, x)
        drop_positives_(_weight_(w, p, loss.neg_lambda).mul_(counts), here, keep)
        sums += [w.sum(), w.mul_(p).sum(), x.sum(dtype=w.dtype)]
    by_piece = torch.stack(sums).view(len(logits), -1, 3) if sums else pairs.x.new_zeros(len(logits), 1, 3)
    Z, M, x_sum = by_piece.sum(1, dtype=torch.float64).unbind(1)
    p_pos = pairs.x.sigmoid()
    w_pos = (-p_pos.double() / loss.pos_lambda).exp() * pairs.positive
    Z_pos, M_pos = _sum_by_image(torch.stack([w_pos, w_pos * p_pos]), pairs)
    return torch.stack([Z, M, Z_pos, M_pos, 0 * x_sum], dim=1)


def _sum_by_image(values: Tensor, pairs: Pairs) -> Tensor:
    """Return (2, B) sums of values (2, N), in an order that is the same on a GPU each time."""
    spread = values.new_zeros(2, pairs.weight.numel()).index_copy_(1, pairs.anchor, values)
    return spread.view(2, *pairs.weight.shape[:2]).sum(2)


def _gradient(
    logits: Tensor, pairs: Pairs, saved: Tensor, upstream: Tensor, loss: DRLoss, scores: Tensor | None
) -> Tensor:
    """Return d loss / d logits, in place of ``scores`` if there are; ``saved`` is (4, B) float64: d loss / d z / Z of
    negatives and positives, P-, P+.

    d z / d p- =  q- (1 + (p - P-) / lambda-), d z / d p+ = q+ (-1 + (p - P+) / lambda+), d p / d x = p (1 - p).
    """
    dtype = compute_dtype(logits)
    by_w_neg, by_w_pos, P_neg, P_pos = saved.unbind(0)  # (B,)
    weight = pairs.weight * (by_w_neg * upstream / loss.neg_lambda).to(dtype)[:, None, None]
    constants = (loss.neg_lambda - P_neg).to(dtype).flatten().unbind()
    gradient = torch.empty_like(logits) if scores is None else scores
    tensors = logits, gradient, weight, pairs.keep, pairs.column
    for image, (x, out, scale, keep, here), (p, w, t) in pieces(*tensors, scratch=3):
        p = sigmoid_(p, x) if scores is None else out
        _weight_(w, p, loss.neg_lambda)
        w.mul_(torch.add(p, constants[image], out=t))  # w (p - P- + lambda-)
        torch.ops.aten.sigmoid_backward.grad_input(w, p, grad_input=t)  # times p (1 - p)
        drop_positives_(torch.mul(t, scale, out=out if out.dtype == dtype else t), here, keep)
        if out.dtype != dtype:
            out.copy_(t)
    p_pos, of_image = pairs.x.sigmoid(), pairs.anchor // logits.shape[1]
    slope = (by_w_pos * upstream)[of_image] * (-p_pos.double() / loss.pos_lambda).exp() * pairs.positive
    slope *= ((p_pos - P_pos[of_image]) / loss.pos_lambda - 1) * p_pos * (1 - p_pos)
    gradient.view(-1).index_add_(0, pairs.place, slope.to(gradient.dtype))  # to the 0 that is left at positives
    return gradient
