"""The papers' formulas in plain lines and autograd: what tests, benchmarks and the theory hold the fast losses to."""

import math

import torch
from torch import Tensor


def ranking_loss(
    p: Tensor,
    positive: Tensor,
    negative: Tensor,
    pos_lambda: float = 1.0,
    h: float = 3.5,
    L: float = 6.0,
    margin: float = 0.5,
) -> Tensor:
    """Return l(P- - P+ + margin), (...), of scores p (..., N) and masks of positives and negatives (..., N): Sec. 1.

    Without positives P+ is 1, without negatives P- is 0 [R]; without either the loss is 0.
    """
    any_pos, any_neg = positive.any(-1), negative.any(-1)
    w_pos, w_neg = (-p / pos_lambda).exp() * positive, (p * math.log(h) / 0.1).exp() * negative  # q, not normalised
    P_pos = torch.where(any_pos, (w_pos * p).sum(-1) / (w_pos.sum(-1) + ~any_pos), 1.0)
    P_neg = (w_neg * p).sum(-1) / (w_neg.sum(-1) + ~any_neg)
    value = (1 + (L * (P_neg - P_pos + margin)).exp()).log() / L
    return torch.where(any_pos | any_neg, value, 0.0)


def dr_loss(
    logits: Tensor,
    labels: Tensor,
    pos_lambda: float = 1.0,
    h: float = 3.5,
    L: float = 6.0,
    margin: float = 0.5,
    tau: float = 4.0,
    scope: str = "image",
) -> Tensor:
    """Return what `drrepro.losses.DRLoss` does."""
    dims = 0 if scope == "batch" else 1
    p, positive, negative = (x.flatten(dims) for x in (logits.sigmoid(), *_masks(logits, labels)))
    return tau * ranking_loss(p, positive, negative, pos_lambda, h, L, margin).mean()


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Return what `drrepro.losses.FocalLoss` does: eq. 5 of Lin et al., over positives + images [M]."""
    p, (positive, negative) = logits.sigmoid(), _masks(logits, labels)
    terms_pos = -alpha * (1 - p[positive]) ** gamma * p[positive].log()
    terms_neg = -(1 - alpha) * p[negative] ** gamma * (1 - p[negative]).log()
    return (terms_pos.sum() + terms_neg.sum()) / ((labels > 0).sum() + len(labels))


def balanced_cross_entropy(logits: Tensor, labels: Tensor, alpha: float = 0.75) -> Tensor:
    """Return what `drrepro.losses.BalancedCrossEntropy` does: eq. 3 of Lin et al., over positives + images [M]."""
    p, (positive, negative) = logits.sigmoid(), _masks(logits, labels)
    total = -alpha * p[positive].log().sum() - (1 - alpha) * (1 - p[negative]).log().sum()
    return total / ((labels > 0).sum() + len(labels))


def quality_focal_loss(logits: Tensor, labels: Tensor, ious: Tensor, beta: float = 2.0) -> Tensor:
    """Return what `drrepro.losses.QualityFocalLoss` does: eq. 2 of Li et al. (2020), over positives + images [M]."""
    p, (positive, negative) = logits.sigmoid(), _masks(logits, labels)
    y = ious[..., None].to(p.dtype) * positive
    terms = (y - p).abs() ** beta * -((1 - y) * (1 - p).log() + y * p.log())
    return terms[positive | negative].sum() / ((labels > 0).sum() + len(labels))


def varifocal_loss(logits: Tensor, labels: Tensor, ious: Tensor, alpha: float = 0.75, gamma: float = 2.0) -> Tensor:
    """Return what `drrepro.losses.VarifocalLoss` does: eq. 2 of Zhang et al. (2021), over positives + images [M]."""
    p, (positive, negative) = logits.sigmoid(), _masks(logits, labels)
    q = ious[..., None].to(p.dtype) * positive
    found = -q * (q * p.log() + (1 - q) * (1 - p).log())
    terms = torch.where(q > 0, found, -alpha * p**gamma * (1 - p).log())
    return terms[positive | negative].sum() / ((labels > 0).sum() + len(labels))


def ghm_c_loss(logits: Tensor, labels: Tensor, bins: int = 30) -> Tensor:
    """Return what `drrepro.losses.GHMCLoss` with momentum 0 does: sum of CE / GD(g), Li et al. (2019)."""
    p, (positive, negative) = logits.sigmoid(), _masks(logits, labels)
    counted = positive | negative
    g = torch.where(positive, 1 - p, p).detach()[counted]
    bin_of = (g * bins).long().clamp(max=bins - 1)
    density = bins * (bin_of[:, None] == bin_of).sum(1)  # GD(g) = M R, R the pairs in the bin of g
    entropy = -torch.where(positive, p, 1 - p).log()[counted]
    return (entropy / density).sum()


def ap_loss(logits: Tensor, labels: Tensor, delta: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the value of `drrepro.losses.APLoss` and the update in place of its gradient, over all pairs.

    L_ij = H(x_j - x_i) / rank(i); where the precision at a lower score is larger, it takes the place of the one at i.
    """
    x, (positive, negative) = logits.detach(), _masks(logits, labels)
    x_pos, x_neg, update = x[positive], x[negative], torch.zeros_like(x)
    if not len(x_pos):
        return x.new_zeros(()), update
    H_pos, H_neg = (_step(other - x_pos[:, None], delta) for other in (x_pos, x_neg))
    rank_pos = H_pos.fill_diagonal_(0).sum(1) + 1
    L = H_neg / (rank_pos + H_neg.sum(1))[:, None]  # (P, N)
    error = torch.stack([L.sum(1)[x_pos <= own].min() for own in x_pos])
    L = L * torch.where(L.sum(1) > 0, error / L.sum(1), 0.0)[:, None]
    update[positive], update[negative] = -L.sum(1) / len(x_pos), L.sum(0) / len(x_pos)
    return error.mean(), update


def rank_sort_loss(logits: Tensor, labels: Tensor, ious: Tensor, delta: float = 0.5) -> tuple[Tensor, Tensor]:
    """Return the value of `drrepro.losses.RankSortLoss` and the update in place of its gradient, over all pairs."""
    x, (positive, negative) = logits.detach(), _masks(logits, labels)
    x_pos, x_neg, update = x[positive], x[negative], torch.zeros_like(x)
    if not len(x_pos):
        return x.new_zeros(()), update
    y = ious[..., None].to(x.dtype).expand_as(x)[positive]
    total, own = x.new_zeros(()), torch.zeros_like(x_pos)
    for i in range(len(x_pos)):
        H_pos, H_neg = _step(x_pos - x_pos[i], delta), _step(x_neg - x_pos[i], delta)
        L_rank = H_neg / (H_pos.sum() + H_neg.sum())  # eq. 7, by negative
        no_lower = H_pos * (y >= y[i])
        sorting = (H_pos * (1 - y)).sum() / H_pos.sum() - (no_lower * (1 - y)).sum() / no_lower.sum()  # eq. 7 - eq. 8
        lower = H_pos * (y < y[i])
        L_sort = sorting * lower / lower.sum() if lower.sum() > 0 else lower
        own += L_sort
        own[i] -= L_rank.sum() + L_sort.sum()
        update[negative] += L_rank / len(x_pos)
        total = total + L_rank.sum() + L_sort.sum()
    update[positive] = own / len(x_pos)
    return total / len(x_pos), update


def _step(d: Tensor, delta: float) -> Tensor:
    """Return H(d), a step smoothed over 2 delta."""
    return (d / (2 * delta) + 0.5).clamp(0, 1)


def _masks(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, A, K) masks of the pairs that are positive, and negative."""
    own = labels[..., None] == torch.arange(1, logits.shape[2] + 1, device=labels.device)
    return own, ~own & (labels >= 0)[..., None]
