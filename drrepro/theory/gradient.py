"""Sec. 1: the closed form of the DR loss's gradient against autograd and finite differences."""

import math
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from drrepro.losses.reference import ranking_loss

matplotlib.use("Agg")

FORMULA = """\
l(z) = log(1 + exp(L z)) / L,  z = P- - P+ + margin,  q- ~ exp(p / lambda-),  q+ ~ exp(-p / lambda+)
dl/dp- = q- / (1 + exp(-L z)) * ( 1 + (p - P-) / lambda-)
dl/dp+ = q+ / (1 + exp(-L z)) * (-1 + (p - P+) / lambda+)"""
MARGIN = 0.5
STEP = 1e-6  # of the central differences


@dataclass(frozen=True)
class Deviation:
    """The largest deviations of the closed form, relative to the largest gradient of the problem."""

    h: float
    neg_lambda: float
    autograd: float
    finite_differences: float


def loss(positives: Tensor, negatives: Tensor, h: float, pos_lambda: float, L: float) -> Tensor:
    """Return l(P- - P+ + margin) of scores (n+,) and (n-,), as Sec. 1 defines it."""
    positive = torch.arange(len(positives) + len(negatives)) < len(positives)
    return ranking_loss(torch.cat([positives, negatives]), positive, ~positive, pos_lambda, h, L, MARGIN)


def closed_form(positives: Tensor, negatives: Tensor, h: float, pos_lambda: float, L: float) -> tuple[Tensor, Tensor]:
    """Return the gradients of `loss` with respect to the positives and the negatives, by the formulas of Sec. 1."""
    neg_lambda = 0.1 / math.log(h)
    q_neg, q_pos = (negatives / neg_lambda).softmax(0), (-positives / pos_lambda).softmax(0)
    P_neg, P_pos = (q_neg * negatives).sum(), (q_pos * positives).sum()
    slope = 1 / (1 + (-L * (P_neg - P_pos + MARGIN)).exp())
    positive = q_pos * slope * (-1 + positives / pos_lambda - P_pos / pos_lambda)
    negative = q_neg * slope * (1 + negatives / neg_lambda - P_neg / neg_lambda)
    return positive, negative


def check(h: float, pos_lambda: float = 1.0, L: float = 6.0, problems: int = 20, seed: int = 0) -> Deviation:
    """Compare on random problems of 5 positives and 60 negatives, in float64."""
    generator = torch.Generator().manual_seed(seed)
    autograd, differences = 0.0, 0.0
    for _ in range(problems):
        scores = torch.rand(65, dtype=torch.float64, generator=generator).requires_grad_()

        def value(p: Tensor) -> Tensor:
            """Return the loss of positives and negatives as one vector."""
            return loss(p[:5], p[5:], h, pos_lambda, L)

        exact = torch.cat(closed_form(scores[:5], scores[5:], h, pos_lambda, L)).detach()
        (automatic,) = torch.autograd.grad(value(scores), scores)
        steps = STEP * torch.eye(65, dtype=torch.float64)
        p = scores.detach()
        central = torch.stack([(value(p + step) - value(p - step)) / (2 * STEP) for step in steps])
        autograd = max(autograd, _relative(exact, automatic))
        differences = max(differences, _relative(exact, central))
    return Deviation(h, 0.1 / math.log(h), autograd, differences)


def draw(hs: list[float]) -> Figure:
    """Draw dl/dp of one negative against its score, among 1,000 others as a detector has them, for a few lambda-."""
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    ax = figure.subplots()
    others = torch.from_numpy(np.random.default_rng(0).beta(1.5, 12, 1000))
    positives = torch.linspace(0.5, 0.9, 5, dtype=torch.float64)
    scores = torch.linspace(0, 1, 201, dtype=torch.float64)
    for h in hs:
        gradients = [closed_form(positives, torch.cat([p[None], others]), h, 1.0, 6.0)[1][0].item() for p in scores]
        ax.plot(scores.tolist(), gradients, label=f"$\\lambda_-$ = {0.1 / math.log(h):.3f} (h = {h:g})")
    ax.set(xlabel="score p of one negative", ylabel="dl/dp")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return figure


def _relative(exact: Tensor, other: Tensor) -> float:
    return float((exact - other).abs().max() / exact.abs().max())
