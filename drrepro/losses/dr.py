"""DR loss: rank the distribution of foreground scores above that of background scores.

*DR Loss: Improving Object Detection by Distributional Ranking*, supplementary, Sec. 1.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from drrepro.losses.targets import check, pairs


class DRLoss(nn.Module):
    """tau * mean_i l(P-_i - P+_i + margin), with l(z) = log(1 + exp(L z)) / L.

    P+ and P- are the expected scores of the positives and the negatives under distributions that lean towards
    the hard ones: q+ ~ exp(-p / lambda+) and q- ~ exp(p / lambda-), lambda- = 0.1 / ln(h). Scores p are the sigmoids
    of the logits, one binary problem for each (anchor, class).

    ``scope``: ``image``, i runs over the images as in Sec. 1; ``batch``, all images make one distribution,
    as the authors' release computes it for the images of one GPU.
    """

    def __init__(
        self,
        pos_lambda: float = 1.0,
        h: float = 3.5,
        L: float = 6.0,
        margin: float = 0.5,
        tau: float = 4.0,
        scope: str = "image",
    ) -> None:
        """Raise ValueError for h <= 1, for a pos_lambda or L that is not positive, and for an unknown scope."""
        super().__init__()
        for name, value, bound in (("pos_lambda", pos_lambda, 0), ("h", h, 1), ("L", L, 0)):
            if not value > bound:
                raise ValueError(f"{name} must exceed {bound}, got {value}")
        if scope not in ("image", "batch"):
            raise ValueError(f"scope must be image or batch, got {scope!r}")
        self.pos_lambda = pos_lambda
        self.neg_lambda = 0.1 / math.log(h)
        self.L = L
        self.margin = margin
        self.tau = tau
        self.scope = scope

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar.

        logits (B, A, K) floating point; labels (B, A) int64: -1 ignored, 0 background, 1..K the class.
        Without positives P+ is 1; without negatives P- is 0; an image whose anchors are all ignored adds 0.
        """
        check(logits, labels)
        positive, negative = pairs(labels, logits.shape[2])
        start = 1 if self.scope == "image" else 0
        p = logits.float().sigmoid() if logits.dtype != torch.float64 else logits.sigmoid()
        p, positive, negative = p.flatten(start), positive.flatten(start), negative.flatten(start)
        P_neg = _expected_score(p, p / self.neg_lambda, negative)
        P_pos = _expected_score(p, -p / self.pos_lambda, positive)
        P_pos = torch.where(positive.any(-1), P_pos, 1.0)
        z = P_neg - P_pos + self.margin
        loss = functional.softplus(self.L * z) / self.L
        return self.tau * torch.where((positive | negative).any(-1), loss, 0.0).mean()


def _expected_score(p: Tensor, log_weights: Tensor, mask: Tensor) -> Tensor:
    """Return sum_j q_j p_j over the masked last dimension, q = softmax(log_weights); 0 where the mask is empty."""
    # The lowest finite number, not -inf: an empty mask then gives 0 with finite gradients.
    q = log_weights.masked_fill(~mask, torch.finfo(p.dtype).min).softmax(-1)
    return (q * p * mask).sum(-1)
