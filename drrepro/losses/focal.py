"""Focal loss: down-weight the easy (anchor, class) pairs.

Lin et al., *Focal Loss for Dense Object Detection* (ICCV 2017), the paper's baseline.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from drrepro.losses.targets import check, pairs


class FocalLoss(nn.Module):
    """sum of -alpha_t (1 - p_t)^gamma log(p_t) over (anchor, class), divided by positives + images."""

    def __init__(self, gamma: float = 2.0, alpha: float = 0.25) -> None:
        """Raise ValueError for a negative gamma or an alpha outside [0, 1]."""
        super().__init__()
        if gamma < 0:
            raise ValueError(f"gamma must be non-negative, got {gamma}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, got {alpha}")
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar.

        logits (B, A, K) floating point; labels (B, A) int64: -1 ignored, 0 background, 1..K the class.
        """
        check(logits, labels)
        positive, negative = pairs(labels, logits.shape[2])
        x = logits.float() if logits.dtype != torch.float64 else logits
        x = torch.where(positive, x, -x)  # p_t = sigmoid(x): x for a positive, -x for a negative
        alpha = self.alpha * positive.to(x.dtype) + (1 - self.alpha) * negative.to(x.dtype)  # 0 where ignored
        terms = -alpha * (-x).sigmoid() ** self.gamma * functional.logsigmoid(x)
        return terms.sum() / ((labels > 0).sum() + len(labels))
