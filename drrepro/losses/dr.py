"""DR loss: rank the distribution of foreground scores above that of background scores.

*DR Loss: Improving Object Detection by Distributional Ranking*, supplementary, Sec. 1. Scores lie in [0, 1], so
exp(p / lambda-) is bounded and one pass over the logits yields every sum of the forward; the gradient has a closed
form, so the backward is one more pass. Beside the gradient itself neither needs memory.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from drrepro.losses.stream import buffers, check, compute_dtype, not_finite, pieces, sigmoid_

MAX_H = 2000.0  # lambda- = 0.1 / ln(h): beyond, exp(-1 / lambda-) leaves float32
MIN_POS_LAMBDA = 0.01


class DRLoss(nn.Module):
    """tau * mean_i l(P-_i - P+_i + margin), with l(z) = log(1 + exp(L z)) / L.

    P+ and P- are the expected scores of the positives and the negatives under distributions that lean towards
    the hard ones: q+ ~ exp(-p / lambda+) and q- ~ exp(p / lambda-), lambda- = 0.1 / ln(h). Scores p are the sigmoids
    of the logits, one binary problem for each (anchor, class).

    ``scope`` says what i runs over: ``image``, the images, as in Sec. 1; ``batch``, all images make one distribution,
    as the authors' release computes it for the images of one GPU; ``global``, those of all ranks of ``group`` do, and
    the gradient is that of the loss of the concatenated batch with respect to this rank's logits.
    """

    def __init__(
        self,
        pos_lambda: float = 1.0,
        h: float = 3.5,
        L: float = 6.0,
        margin: float = 0.5,
        tau: float = 4.0,
        scope: str = "image",
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
        with torch.autocast(logits.device.type, enabled=False):
            sums = _sums(logits, labels, loss)
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
        slope = loss.tau / max(1, len(z)) * (loss.L * z).sigmoid() * counted  # d loss / d z = tau / (D (1 + exp(-L z)))
        by_weight = [torch.where(Z > 0, slope / Z, 0.0) for Z in (Z_neg, Z_pos)]  # q = weight / Z
        ctx.save_for_backward(logits, labels, torch.stack([*by_weight, P_neg, P_pos]))
        ctx.loss = loss
        return (loss.tau * value.sum() / max(1, len(z))).to(compute_dtype(logits))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        logits, labels, saved = ctx.saved_tensors
        scale = torch.stack([upstream, upstream, torch.ones_like(upstream), torch.ones_like(upstream)])
        return _gradient(logits, labels, (saved * scale[:, None]).to(compute_dtype(logits)), ctx.loss), None, None


def _sums(logits: Tensor, labels: Tensor, loss: DRLoss) -> Tensor:
    """Return (B, 5) float64: Z- = sum w, M- = sum w p with w = exp((p - 1) / lambda-); Z+ and M+ likewise; 0 or NaN."""
    inverse = 1 / loss.neg_lambda
    minus = logits.new_full((), -inverse, dtype=compute_dtype(logits))
    sums = torch.zeros(len(logits), 5, dtype=torch.float64, device=logits.device)
    p_buffer, w_buffer = buffers(logits, 2)
    for piece in pieces(logits, labels):
        p, w = p_buffer[: len(piece.x)], w_buffer[: len(piece.x)]
        sigmoid_(p, piece.x)
        torch.add(minus, p, alpha=inverse, out=w).exp_()
        w.scatter_(1, piece.column, w.gather(1, piece.column).masked_fill_(piece.positive, 0))
        Z = torch.mv(w.T, piece.weight[:, 0]).sum(dtype=torch.float64)
        M = torch.mv(w.mul_(p).T, piece.weight[:, 0]).sum(dtype=torch.float64)
        p_pos = p.gather(1, piece.column).double()
        w_pos = (-p_pos / loss.pos_lambda).exp() * piece.positive
        sums[piece.image] += torch.stack([Z, M, w_pos.sum(), (w_pos * p_pos).sum(), not_finite(piece.x)])
    return sums


def _gradient(logits: Tensor, labels: Tensor, saved: Tensor, loss: DRLoss) -> Tensor:
    """Return d loss / d logits; ``saved`` is (4, D): d loss / d z / Z for negatives and positives, P-, P+.

    d z / d p- =  q- (1 + (p - P-) / lambda-), d z / d p+ = q+ (-1 + (p - P+) / lambda+), d p / d x = p (1 - p).
    """
    inverse = 1 / loss.neg_lambda
    minus = saved.new_full((), -inverse)
    by_w_neg, by_w_pos, P_neg, P_pos = saved.expand(4, len(logits)).unbind(0)
    constant = 1 - P_neg * inverse
    gradient = torch.empty_like(logits)
    p_buffer, w_buffer, t_buffer = buffers(logits, 3)
    for piece in pieces(logits, labels):
        i, rows = piece.image, len(piece.x)
        out = gradient[i, piece.anchors]
        in_place = out.dtype == saved.dtype
        p, w, t = out if in_place else p_buffer[:rows], w_buffer[:rows], t_buffer[:rows]
        sigmoid_(p, piece.x)
        p_pos = p.gather(1, piece.column)
        torch.add(minus, p, alpha=inverse, out=w).exp_()
        w.mul_(torch.add(constant[i], p, alpha=inverse, out=t))
        w.mul_(torch.addcmul(p, p, p, value=-1, out=t))
        torch.mul(w, piece.weight * by_w_neg[i], out=p)
        slope = by_w_pos[i] * (-p_pos / loss.pos_lambda).exp() * ((p_pos - P_pos[i]) / loss.pos_lambda - 1)
        positive = slope * p_pos * (1 - p_pos)
        p.scatter_(1, piece.column, torch.where(piece.positive, positive, p.gather(1, piece.column)))
        if not in_place:
            out.copy_(p)
    return gradient
