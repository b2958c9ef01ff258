"""GHM-C against its paper's formulas."""

import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drrepro.losses import GHMCLoss, reference
from tests.losses.test_elementwise import assert_same
from tests.losses.test_losses import problems


@settings(deadline=None, max_examples=100)
@given(problem=problems(), bins=st.sampled_from([1, 3, 30]))
def test_without_momentum_it_equals_the_reference(problem, bins):
    logits, labels = problem
    assert_same(GHMCLoss(bins, 0.0)(logits, labels), reference.ghm_c_loss(logits, labels, bins), logits)


def test_counts_are_a_moving_average_that_is_state_and_evaluation_leaves_alone():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 40, 3, dtype=torch.float64), torch.randint(-1, 4, (2, 40))
    plain, moving = GHMCLoss(5, 0.0), GHMCLoss(5, 0.75)
    once = plain(logits, labels)
    torch.testing.assert_close(moving(logits, labels), 4 * once)  # S = R / 4 after the first, from 0
    torch.testing.assert_close(moving(logits, labels), once / (1 - 0.75**2))
    resumed = GHMCLoss(5, 0.75)
    resumed.load_state_dict(moving.state_dict())
    resumed.eval()
    third = resumed(logits, labels)
    torch.testing.assert_close(third, once / (1 - 0.75**3))
    assert resumed(logits, labels) == third
    assert plain.counts.sum() == 3 * (labels >= 0).sum()


def test_the_average_is_of_every_bin_and_bins_long_empty_weigh_nothing():
    torch.manual_seed(4)
    bins, momentum, loss = 4, 0.75, GHMCLoss(4, 0.75)
    labels = torch.tensor([[1, 0, -1, 0]])
    S = torch.zeros(bins, dtype=torch.float64)
    for number in range(500):
        # Only the first passes have pairs in the last bin. The ignored anchor lies in a bin that empties too.
        p = (
            torch.tensor([0.1, 0.9, 0.6, 0.6])
            if number < 2
            else torch.tensor([0.9, 0.1 + 0.3 * (number % 2), 0.6, 0.2])
        )
        logits = p.logit()[None, :, None].requires_grad_()
        value = loss(logits, labels)
        value.backward()
        g = torch.where(labels[0] == 1, 1 - p, p).double()
        places = (g * bins).long()
        counted = labels[0] >= 0
        S = momentum * S + (1 - momentum) * torch.bincount(places[counted], minlength=bins)
        expected = (-(1 - g).log() / (bins * S[places]))[counted].sum()
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=0)
        assert logits.grad.isfinite().all()
        assert logits.grad[0, 2] == 0
    assert S[3] < 1e-60


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precisions_are_computed_in_float32_with_and_without_autocast(dtype):
    torch.manual_seed(5)
    logits, labels = torch.randn(2, 60, 4).to(dtype).requires_grad_(), torch.randint(-1, 5, (2, 60))
    exact = logits.detach().double().requires_grad_()
    expected = reference.ghm_c_loss(exact, labels)
    (expected_gradient,) = torch.autograd.grad(expected, exact)
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = GHMCLoss(momentum=0.0)(logits, labels)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.dtype == torch.float32
        assert gradient.dtype == dtype
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=0)
        torch.testing.assert_close(gradient.double(), expected_gradient, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_every_bin_that_has_pairs_weighs_the_same():
    p = torch.tensor([[[0.05], [0.05], [0.05], [0.95]]], dtype=torch.float64)
    logits = p.logit().requires_grad_()
    GHMCLoss(10, 0.0)(logits, torch.zeros(1, 4, dtype=torch.int64)).backward()
    torch.testing.assert_close(logits.grad, p / torch.tensor([30.0, 30, 30, 10])[:, None])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("label", [-1, 0, 1])
def test_what_is_not_finite_is_never_silently_finite(bad, label):
    logits = torch.zeros(1, 3, 2)
    logits[0, 1, 0] = bad
    assert not GHMCLoss()(logits, torch.tensor([[0, label, 0]])).isfinite()


@pytest.mark.parametrize("scale", [30.0, 200.0])
def test_saturated_scores_stay_finite(scale):
    logits = (scale * torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])).requires_grad_()
    value = GHMCLoss()(logits, torch.tensor([[1, 0]]))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_pieces_and_a_second_backward_make_no_difference(monkeypatch):
    torch.manual_seed(1)
    logits, labels = torch.randn(2, 50, 7, requires_grad=True), torch.randint(-1, 8, (2, 50))
    whole = GHMCLoss()(logits, labels)
    gradients = [torch.autograd.grad(whole, logits, retain_graph=True)[0] for _ in range(2)]
    monkeypatch.setattr("drrepro.losses.stream.CPU_PIECE", 30)
    small = GHMCLoss()(logits, labels)
    torch.testing.assert_close(small, whole)
    for gradient in gradients:
        torch.testing.assert_close(gradient, torch.autograd.grad(small, logits, retain_graph=True)[0])


def test_shares_are_a_mean_over_passes():
    torch.manual_seed(2)
    logits, labels = torch.randn(2, 9, 3), torch.randint(-1, 4, (2, 9))
    torch.testing.assert_close(GHMCLoss().share(logits, labels, None, 4), GHMCLoss()(logits, labels) / 4)


def one_of_two(number, folder, logits, labels):
    os.environ.update(RANK=str(number), WORLD_SIZE="2")
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=number, world_size=2)
    own = logits[number::2].clone().requires_grad_()
    loss = GHMCLoss()
    value = loss.share(own, labels[number::2], None, 2)
    value.backward()
    torch.save((value.detach(), own.grad, loss.counts), f"{folder}/{number}.pt")
    if number == 1:
        own = own.detach().fill_(math.nan)
    value = loss.share(own, labels[number::2], None, 2)  # no rank waits for another
    assert value.isfinite() == (number == 0)
    torch.distributed.destroy_process_group()


def test_the_shares_of_two_ranks_are_the_loss_of_the_batch_of_both(tmp_path):
    torch.manual_seed(3)
    logits, labels = torch.randn(4, 20, 3), torch.randint(-1, 4, (4, 20))
    torch.multiprocessing.spawn(one_of_two, (str(tmp_path), logits, labels), nprocs=2)
    whole, loss = logits.clone().requires_grad_(), GHMCLoss()
    expected = loss(whole, labels)
    expected.backward()
    parts = [torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in (0, 1)]
    torch.testing.assert_close(sum(value for value, _, _ in parts), expected.detach())
    for number, (_, gradient, counts) in enumerate(parts):
        torch.testing.assert_close(gradient, whole.grad[number::2])
        assert torch.equal(counts, loss.counts)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GHMCLoss(0), "bins must be at least 1, got 0"),
        (lambda: GHMCLoss(momentum=1), "momentum must be from 0 to below 1, got 1"),
    ],
)
def test_wrong_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
