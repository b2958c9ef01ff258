"""Theorem 1: SGD on the DR loss of a small scorer, its average squared gradient norm against the theorem's bound."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from drrepro.theory.scorer import Problem, curvatures, deviations, gradients

matplotlib.use("Agg")

FORMULA = """\
L(theta)       = 1/N sum_i l_i(theta), l_i the DR loss of image i (Sec. 1): the mean, so that E[grad l_i] = grad L
Definition 1   L(theta') <= L(theta) + <grad L(theta), theta' - theta> + mu/2 |theta' - theta|^2
deviation      |grad l_i(theta) - grad L(theta)| <= delta for every image i (Sec. 2)
step size      eta = sqrt(2 m L(theta_0)) / (delta sqrt(mu T)), to be at most 1/mu (Sec. 2, last display)
bound          1/T sum_t E|grad L(theta_t)|^2 <= 2 L(theta_0) / (eta T) + mu eta delta^2 / m (Sec. 2, last but one)
               = 2 delta sqrt(2 mu L(theta_0) / (m T)) at this step size"""
BATCHES = (1, 2, 4, 8, 16)
STEPS = (4, 16, 64, 256, 1024)
REPETITIONS = 8
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Constants:
    """What the theorem takes as given; mu and delta are the largest values found at ``points`` points."""

    mu: float
    delta: float
    start: float  # L(theta_0)
    points: int

    def step_size(self, m: int, T: int) -> float:
        """Return eta of Theorem 1."""
        return math.sqrt(2 * m * self.start) / (self.delta * math.sqrt(self.mu * T))

    def bound(self, m: int, T: int) -> float:
        """Return Theorem 1's bound on the average of E|grad L|^2 over the T steps."""
        eta = self.step_size(m, T)
        return 2 * self.start / (eta * T) + self.mu * eta * self.delta**2 / m


@dataclass(frozen=True)
class Descent:
    """What R runs went through, each (R,): an average over the steps, and the most that the assumptions had to cover.

    ``curvature`` is 2 (L(theta') - L(theta) - <grad L, theta' - theta>) / |theta' - theta|^2: mu must not be below it.
    """

    squared_norm: Tensor  # average of |grad L|^2
    deviation: Tensor  # largest |grad l_i - grad L|
    curvature: Tensor  # largest over the steps taken
    visited: Tensor  # (T + 1, R, D, K)


def measure(problem: Problem, seed: int = 0) -> Constants:
    """Estimate mu and delta from below: the largest values at random points and along SGD with mini-batches of one."""
    rng = torch.Generator().manual_seed(seed)
    directions = torch.randn(100, *problem.start().shape, generator=rng, dtype=torch.float64)
    lengths = 10 ** torch.linspace(-1.5, 1.5, len(directions), dtype=torch.float64)
    random = directions * (lengths / directions.flatten(1).norm(dim=1))[:, None, None]
    m = torch.ones(4, dtype=torch.int64)
    pilot = descend(problem, m / curvatures(random, problem).max(), m, 256, rng)
    points = torch.cat([random, pilot.visited[::8].flatten(0, 1)])
    mu, delta = curvatures(points, problem).max(), deviations(gradients(points, problem)[1]).max()
    start, _ = gradients(problem.start()[None], problem)
    return Constants(float(mu), float(delta), float(start), len(points))


def descend(problem: Problem, eta: Tensor, m: Tensor, T: int, rng: torch.Generator) -> Descent:
    """Take T steps of SGD from theta_0 in R runs with the step sizes eta (R,) and mini-batches of m (R,) int64 images.

    They are drawn independently (with replacement), as delta^2 / m in the proof needs. The gradients of all images are
    computed at every step, so grad L and the deviations are exact.
    """
    runs, theta = torch.arange(len(m)), problem.start().repeat(len(m), 1, 1)
    squared_norm, deviation, curvature = torch.zeros(3, len(m), dtype=torch.float64)
    counted = (torch.arange(int(m.max())) < m[:, None])[..., None]
    visited = [theta]
    value, gradient = gradients(theta, problem)
    for _ in range(T):
        full = gradient.mean(1)
        squared_norm += full.square().sum(1) / T
        deviation = deviation.maximum(deviations(gradient).amax(1))
        drawn = torch.randint(gradient.shape[1], counted.shape[:2], generator=rng)
        step = -(eta / m)[:, None] * (gradient[runs[:, None], drawn] * counted).sum(1)
        theta = theta + step.view_as(theta)
        visited.append(theta)
        linear = value + (full * step).sum(1)
        value, gradient = gradients(theta, problem)
        curvature = curvature.maximum(2 * (value - linear) / step.square().sum(1))
    return Descent(squared_norm, deviation, curvature, torch.stack(visited))


def check(
    problem: Problem,
    constants: Constants,
    steps: tuple[int, ...] = STEPS,
    repetitions: int = REPETITIONS,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> pd.DataFrame:
    """Compare the average squared gradient norm, the mean of the repetitions, with the bound, a row for each (m, T).

    ``assumptions`` says whether eta <= 1/mu and mu and delta cover all that the repetitions went through.
    """
    rows = []
    rng = torch.Generator().manual_seed(seed)
    m = torch.tensor(BATCHES).repeat_interleave(repetitions)
    for i, T in enumerate(steps):
        progress(sum(steps[:i]), sum(steps))
        eta = torch.tensor([constants.step_size(int(size), T) for size in m], dtype=torch.float64)
        found = descend(problem, eta, m, T, rng)
        for size in BATCHES:
            average, deviation, curvature = (
                x[m == size] for x in (found.squared_norm, found.deviation, found.curvature)
            )
            rows.append(
                {
                    "m": size,
                    "T": T,
                    "eta": constants.step_size(size, T),
                    "eta_mu": constants.step_size(size, T) * constants.mu,
                    "measured": float(average.mean()),
                    "largest": float(average.max()),
                    "bound": constants.bound(size, T),
                    "deviation": float(deviation.max()),
                    "curvature": float(curvature.max()),
                }
            )
    progress(sum(steps), sum(steps))
    frame = pd.DataFrame(rows)
    covered = (frame["curvature"] <= constants.mu) & (frame["deviation"] <= constants.delta)
    return frame.assign(assumptions=covered & (frame["eta_mu"] <= 1), holds=frame["measured"] <= frame["bound"])


def verdicts(frame: pd.DataFrame, constants: Constants) -> list[str]:
    """Say plainly what holds, what fails where, and which constants are only estimates."""
    mu, delta = constants.mu, constants.delta
    sloped = frame[frame["assumptions"]]
    lines = [
        _verdict(frame, ~frame["holds"], "the measured average is under the bound"),
        _verdict(frame, frame["eta_mu"] > 1, "eta <= 1/mu", "; there the theorem promises nothing"),
        f"mu = {mu:.4g} and delta = {delta:.4g} are only estimates from below: the largest Hessian eigenvalue and the "
        f"largest deviation at {constants.points} points; what the runs needed of them is checked instead:",
        _verdict(
            frame, frame["curvature"] > mu, f"mu covers every step (at most {frame['curvature'].max():.4g} needed)"
        ),
        _verdict(
            frame, frame["deviation"] > delta, f"delta covers every point (at most {frame['deviation'].max():.4g})"
        ),
    ]
    if len(sloped) > 1:
        slope, _ = np.polyfit(np.log(sloped["m"] * sloped["T"]), np.log(sloped["measured"]), 1)
        lines.append(f"the measured average falls as (m T)^{slope:.2f}, the bound as (m T)^-0.50")
    return lines


def _verdict(frame: pd.DataFrame, failed: "pd.Series[bool]", claim: str, consequence: str = "") -> str:
    if not failed.any():
        return f"holds at all {len(frame)} (m, T): {claim}"
    where = "all" if failed.all() else " ".join(f"({row.m}, {row.T})" for row in frame[failed].itertuples())
    return f"FAILS at {failed.sum()} of {len(frame)} (m, T), {where}: {claim}{consequence}"


def draw(frame: pd.DataFrame) -> Figure:
    """Draw the measured averages and the bounds against T for each m, and against m for each T."""
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _curves(left, frame, "T", "m")
    _curves(right, frame, "m", "T")
    left.set(xlabel="steps T", ylabel="average squared gradient norm")
    right.set(xlabel="mini-batch m, images")
    keys = [
        Line2D([], [], color="grey", marker="o", markersize=4, label="measured"),
        Line2D([], [], color="grey", linestyle="--", linewidth=1, label="bound"),
        Line2D([], [], color="grey", linestyle="", marker="o", markerfacecolor="white", label="an assumption fails"),
    ]
    figure.legend(handles=keys, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _curves(ax: Axes, frame: pd.DataFrame, x: str, each: str) -> None:
    values, ticks = sorted(frame[each].unique()), sorted(frame[x].unique())
    for i, value in enumerate(values):
        chosen, colour = frame[frame[each] == value], matplotlib.colormaps["viridis"](0.8 * i / max(1, len(values) - 1))
        ax.plot(chosen[x], chosen["measured"], "o-", color=colour, markersize=4)
        ax.plot(chosen[x], chosen["bound"], "--", color=colour, linewidth=1)
        outside = chosen[~chosen["assumptions"]]
        ax.plot(outside[x], outside["measured"], "o", color=colour, markerfacecolor="white")
        for end, kind, side, shift in ((-1, "measured", "left", 6), (0, "bound", "right", -6)):
            ax.annotate(
                f"{each} = {value}",
                (chosen[x].iloc[end], chosen[kind].iloc[end]),
                (shift, 0),
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize="small",
                color=colour,
            )
    ax.set(xscale="log", yscale="log")
    ax.margins(x=0.25)
    ax.set_xticks(ticks, labels=[f"{tick}" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.spines[["top", "right"]].set_visible(False)
