"""Sec. 1 and focal loss word for word, one pair at a time, in float64."""

import math

from torch import Tensor


def dr_loss(logits, labels, pos_lambda=1.0, h=3.5, L=6.0, margin=0.5, tau=4.0, scope="image") -> Tensor:
    p = logits.double().sigmoid()
    images = [range(len(p))] if scope == "batch" else [[i] for i in range(len(p))]
    total = logits.double().sum() * 0
    for image in images:
        positives, negatives = [], []
        for i in image:
            for a in range(p.shape[1]):
                for k in range(p.shape[2]):
                    if labels[i, a] >= 0:
                        (positives if labels[i, a] == k + 1 else negatives).append(p[i, a, k])
        if positives or negatives:
            P_pos = _expected(positives, -1 / pos_lambda) if positives else 1.0
            P_neg = _expected(negatives, math.log(h) / 0.1) if negatives else 0.0
            z = P_neg - P_pos + margin
            total = total + (1 + (L * z).exp()).log() / L
    return tau * total / len(images)


def _expected(scores, factor):
    weights = [(factor * p).exp() for p in scores]
    return sum(w * p for w, p in zip(weights, scores, strict=True)) / sum(weights)


def focal_loss(logits, labels, gamma=2.0, alpha=0.25) -> Tensor:
    p = logits.double().sigmoid()
    total = logits.double().sum() * 0
    for i in range(p.shape[0]):
        for a in range(p.shape[1]):
            for k in range(p.shape[2]):
                if labels[i, a] >= 0:
                    foreground = labels[i, a] == k + 1
                    pt = p[i, a, k] if foreground else 1 - p[i, a, k]
                    total = total - (alpha if foreground else 1 - alpha) * (1 - pt) ** gamma * pt.log()
    return total / ((labels > 0).sum() + len(labels))
