"""The DR loss of a scorer so small that its smoothness and its gradients' deviation can be measured.

The scorer is linear: the logits (A, K) of an image are its anchors' features (A, D) times theta (D, K). R scorers are
computed at a time, in float64.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from drrepro.losses.reference import ranking_loss


@dataclass(frozen=True)
class Problem:
    """N images with A anchors: features (N, A, D) float64, labels (N, A) int64, 0 background, 1..K the class."""

    features: Tensor
    labels: Tensor
    classes: int

    def start(self) -> Tensor:
        """Return theta_0 = 0, (D, K): every score is 0.5, as the recipe's prior makes them [R]."""
        return self.features.new_zeros(self.features.shape[2], self.classes)


def generate(images: int = 32, anchors: int = 40, features: int = 6, classes: int = 2, seed: int = 0) -> Problem:
    """Make up images as a detector's last layer sees them: in each, one to four anchors show the pattern of a class."""
    rng = torch.Generator().manual_seed(seed)
    patterns = torch.randn(1 + classes, features, generator=rng, dtype=torch.float64)
    patterns[0] = 0
    labels = torch.randint(1, classes + 1, (images, anchors), generator=rng)
    labels *= torch.arange(anchors) < torch.randint(1, 5, (images, 1), generator=rng)
    noise = 0.5 * torch.randn(images, anchors, features, generator=rng, dtype=torch.float64)
    shared = 0.5 * torch.randn(images, 1, features, generator=rng, dtype=torch.float64)  # by the anchors of an image
    x = patterns[labels] + noise + shared
    return Problem(torch.cat([x, torch.ones_like(x[..., :1])], dim=2), labels, classes)  # the ones take the bias


def losses(theta: Tensor, problem: Problem) -> Tensor:
    """Return the DR loss l_i of every image, (R, N); theta is (R, D, K), or (R, N, D, K) with one for each image."""
    theta = theta[:, None] if theta.ndim == 3 else theta
    p = (problem.features @ theta).sigmoid().flatten(2)
    positive = (problem.labels[..., None] == torch.arange(1, problem.classes + 1)).flatten(1)
    return ranking_loss(p, positive, ~positive)


def gradients(theta: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """Return L, the mean loss, (R,) and grad l_i of every image, (R, N, D * K), for theta (R, D, K)."""
    own = theta[:, None].repeat(1, len(problem.features), 1, 1).requires_grad_()
    values = losses(own, problem)
    (gradient,) = torch.autograd.grad(values.sum(), own)  # each image's goes to its own copy of theta
    return values.detach().mean(1), gradient.flatten(2)


def deviations(gradient: Tensor) -> Tensor:
    """Return |grad l_i - grad L| of every image, (R, N), for the gradients (R, N, D * K)."""
    return (gradient - gradient.mean(1, keepdim=True)).square().sum(2).sqrt()


def curvatures(theta: Tensor, problem: Problem) -> Tensor:
    """Return the largest eigenvalue of the Hessian of L, (R,), for theta (R, D, K)."""
    theta = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(losses(theta, problem).mean(1).sum(), theta, create_graph=True)
    sums = gradient.flatten(1).sum(0)  # over the R scorers, none of which bears on another's gradient
    rows = [torch.autograd.grad(entry, theta, retain_graph=True)[0].flatten(1) for entry in sums]
    eigenvalues: Tensor = torch.linalg.eigvalsh(torch.stack(rows, 1))  # ascending
    return eigenvalues[:, -1]
