import json
import math
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from drrepro.cli import app
from drrepro.losses import DRLoss
from drrepro.theory import convergence, scorer
from drrepro.theory.convergence import Constants, check, descend, draw, measure, verdicts


@pytest.fixture(scope="module")
def problem():
    return scorer.generate(images=12, anchors=15, features=3, seed=3)


@pytest.fixture(scope="module")
def constants(problem):
    return measure(problem, seed=3)


def somewhere(problem, count=1, scale=1.0):
    rng = torch.Generator().manual_seed(7)
    return scale * torch.randn(count, *problem.start().shape, generator=rng, dtype=torch.float64)


def test_the_objective_is_the_loss_of_the_project_and_its_gradient_is_autograds(problem):
    theta = somewhere(problem)[0].requires_grad_()
    project = DRLoss(tau=1.0)(problem.features @ theta, problem.labels)
    mean = scorer.losses(theta[None], problem).mean()
    torch.testing.assert_close(mean, project, rtol=1e-12, atol=0)
    value, gradient = scorer.gradients(theta.detach()[None], problem)
    torch.testing.assert_close(value[0], mean.detach(), rtol=1e-12, atol=0)
    for loss in (project, mean):
        (automatic,) = torch.autograd.grad(loss, theta)
        torch.testing.assert_close(gradient[0].mean(0), automatic.flatten(), rtol=1e-9, atol=1e-12)


def test_an_images_gradient_is_that_of_its_own_loss(problem):
    theta = somewhere(problem)[0].requires_grad_()
    _, gradient = scorer.gradients(theta.detach()[None], problem)
    for i in (0, 5):
        (own,) = torch.autograd.grad(scorer.losses(theta[None], problem)[0, i], theta)
        torch.testing.assert_close(gradient[0, i], own.flatten(), rtol=1e-12, atol=1e-14)


def test_the_curvature_is_the_largest_eigenvalue_of_the_hessian(problem):
    theta = somewhere(problem, 3)
    for own, found in zip(theta, scorer.curvatures(theta, problem), strict=True):
        hessian = torch.func.hessian(lambda t: scorer.losses(t[None], problem).mean())(own)
        exact = torch.linalg.eigvalsh(hessian.reshape(own.numel(), own.numel()))[-1]
        assert float(found) == pytest.approx(float(exact), rel=1e-9)


def test_the_deviations_are_distances_to_the_mean_and_delta_bounds_those_of_a_run(problem, constants):
    theta = somewhere(problem)
    _, gradient = scorer.gradients(theta, problem)
    by_hand = [math.dist(own.tolist(), gradient[0].mean(0).tolist()) for own in gradient[0]]
    assert scorer.deviations(gradient)[0].tolist() == pytest.approx(by_hand, rel=1e-12)
    run = descend(problem, torch.tensor([0.3]), torch.tensor([2]), 50, torch.Generator().manual_seed(1))
    along = max(
        float(scorer.deviations(scorer.gradients(theta, problem)[1]).max()) for theta in run.visited[:-1]
    )  # the last point takes no step
    assert float(run.deviation) == pytest.approx(along, rel=1e-12)
    assert along <= constants.delta
    assert float(run.curvature) <= constants.mu


def test_step_size_and_bound_are_the_formulas_of_theorem_1():
    constants = Constants(mu=4.0, delta=0.5, start=2.0, points=1)
    # m = 4, T = 16: eta = sqrt(2 * 4 * 2) / (0.5 * sqrt(4 * 16)) = 4 / 4 = 1
    assert constants.step_size(4, 16) == pytest.approx(1.0)
    # 2 * 2 / (1 * 16) + 4 * 1 * 0.25 / 4 = 0.25 + 0.25
    assert constants.bound(4, 16) == pytest.approx(0.5)
    assert constants.bound(1, 100) == pytest.approx(2 * 0.5 * math.sqrt(2 * 4 * 2 / 100))


def test_a_batch_of_one_image_moves_by_its_gradient(problem):
    eta, m = torch.tensor([0.1, 0.1]), torch.tensor([1, 3])
    run = descend(problem, eta, m, 1, torch.Generator().manual_seed(5))
    drawn = torch.randint(12, (2, 3), generator=torch.Generator().manual_seed(5))
    _, gradient = scorer.gradients(problem.start()[None], problem)
    for r, size in enumerate(m):
        step = -0.1 * gradient[0, drawn[r, :size]].mean(0)
        torch.testing.assert_close(run.visited[1, r].flatten(), step, rtol=1e-6, atol=0)
    assert float(run.squared_norm[0]) == pytest.approx(float(gradient[0].mean(0).square().sum()))


def test_the_bound_holds_on_a_small_run(problem, constants):
    frame = check(problem, constants, steps=(64,), repetitions=2)
    assert list(frame["m"]) == [1, 2, 4, 8, 16]
    assert frame["holds"].all()
    assert frame["assumptions"].all()
    assert (frame["measured"] > 0).all()
    assert verdicts(frame, constants)[0] == "holds at all 5 (m, T): the measured average is under the bound"
    again = check(problem, constants, steps=(64,), repetitions=2)
    assert again.equals(frame)


def test_a_delta_that_is_too_small_is_reported(problem, constants):
    wrong = replace(constants, delta=constants.delta / 100)
    frame = check(problem, wrong, steps=(16,), repetitions=1)
    assert not frame["holds"].any()
    assert not frame["assumptions"].any()
    bound, _, _, _, delta = verdicts(frame, wrong)
    assert bound == "FAILS at 5 of 5 (m, T), all: the measured average is under the bound"
    assert delta.startswith("FAILS at 5 of 5 (m, T), all: delta covers every point")


def test_a_mu_that_is_too_small_is_reported(problem, constants):
    wrong = replace(constants, mu=constants.mu / 1e5)
    frame = check(problem, wrong, steps=(16,), repetitions=1)
    assert not frame["holds"].any()
    assert verdicts(frame, wrong)[3].startswith("FAILS at 5 of 5 (m, T), all: mu covers every step")


def test_a_step_size_above_1_over_mu_is_reported(problem, constants):
    frame = check(problem, constants, steps=(1, 64), repetitions=1)
    too_large = frame["eta"] * constants.mu > 1
    assert 0 < too_large.sum() < 10
    assert not frame[too_large]["assumptions"].any()
    line = verdicts(frame, constants)[1]
    assert line.startswith(f"FAILS at {too_large.sum()} of 10 (m, T), ")
    assert "(16, 1): eta <= 1/mu; there the theorem promises nothing" in line


def test_the_figure_shows_measured_and_bound_against_t_and_m(problem, constants):
    frame = check(problem, constants, steps=(2, 8), repetitions=1)
    left, right = draw(frame).axes
    assert left.lines[1].get_ydata() == pytest.approx(frame[frame["m"] == 1]["bound"])
    assert right.lines[0].get_ydata() == pytest.approx(frame[frame["T"] == 2]["measured"])


def test_the_command_writes_table_and_figure_and_prints_the_verdicts(tmp_path, monkeypatch):
    monkeypatch.setattr(scorer, "generate", partial(scorer.generate, images=6, anchors=10, features=2))
    monkeypatch.setattr(convergence, "check", partial(check, steps=(2, 16), repetitions=2))
    command = ["theory", "convergence", "--seed", "2", "--results", str(tmp_path)]
    printed = json.loads(CliRunner().invoke(app, [*command, "--json", "--quiet"]).stdout)
    assert printed["files"] == [str(tmp_path / "theory" / f"convergence.{suffix}") for suffix in ("csv", "png")]
    frame = pd.read_csv(printed["files"][0])
    assert list(frame["bound"]) == pytest.approx([row["bound"] for row in printed["rows"]], rel=1e-5)
    assert len(frame) == 10
    text = CliRunner().invoke(app, command).stdout
    for line in [*printed["verdicts"], printed["formula"]]:
        assert line in text
    assert "only estimates from below" in text
