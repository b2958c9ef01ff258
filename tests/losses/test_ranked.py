"""AP loss and rank & sort loss against their papers' formulas over all pairs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drrepro.losses import APLoss, RankSortLoss, reference
from tests.losses.test_losses import problems

LOSSES = [
    (APLoss(), lambda x, y, q: reference.ap_loss(x, y)),
    (APLoss(0.3), lambda x, y, q: reference.ap_loss(x, y, 0.3)),
    (RankSortLoss(), reference.rank_sort_loss),
    (RankSortLoss(2.0), lambda x, y, q: reference.rank_sort_loss(x, y, q, 2.0)),
]
EACH = pytest.mark.parametrize("loss", [APLoss(), RankSortLoss()])
COARSE = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 3.0])  # logits that tie, and that lie on knots


def value_and_gradient(loss, logits, labels, ious):
    logits = logits.detach().requires_grad_()
    value = loss(logits, labels, **({"ious": ious} if loss.needs_ious else {}))
    value.backward()
    return value.detach(), logits.grad


def check(loss, naive, logits, labels, ious):
    value, gradient = value_and_gradient(loss, logits, labels, ious)
    expected, update = naive(logits, labels, ious)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, update, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("loss", "naive"), LOSSES)
@settings(deadline=None, max_examples=80)
@given(problem=problems(), coarse=st.booleans(), data=st.data())
def test_value_and_update_equal_the_reference(loss, naive, problem, coarse, data):
    logits, labels = problem
    count = labels.numel()
    if coarse:
        drawn = data.draw(st.lists(COARSE, min_size=logits.numel(), max_size=logits.numel()))
        logits = torch.tensor(drawn, dtype=torch.float64).view_as(logits)
    quality = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
    ious = torch.tensor(data.draw(st.lists(quality, min_size=count, max_size=count)), dtype=torch.float64)
    check(loss, naive, logits, labels, ious.view_as(labels))


@pytest.mark.parametrize(("loss", "naive"), LOSSES)
@pytest.mark.parametrize("spread", [0.05, 3.0, 100.0])
def test_many_anchors_equal_the_reference(loss, naive, spread, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr("drrepro.losses.stream.CPU_PIECE", 2000)
    monkeypatch.setattr("drrepro.losses.ranked.PAIRS", 1000)
    logits = spread * torch.randn(2, 2000, 5, dtype=torch.float64) - 4.6
    labels = torch.where(torch.rand(2, 2000) < 0.03, torch.randint(1, 6, (2, 2000)), torch.randint(-1, 1, (2, 2000)))
    check(loss, naive, logits, labels, torch.rand(2, 2000, dtype=torch.float64))


@pytest.mark.parametrize(("loss", "naive"), LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precisions_are_computed_in_float32(loss, naive, dtype):
    torch.manual_seed(1)
    logits, labels = torch.randn(1, 300, 4).to(dtype), torch.randint(-1, 5, (1, 300))
    ious = torch.rand(1, 300)
    value, gradient = value_and_gradient(loss, logits, labels, ious)
    expected, update = naive(logits.double(), labels, ious.double())
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double(), update, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


@EACH
def test_the_order_of_scores_alone_matters_and_perfect_order_is_no_loss(loss):
    logits = torch.tensor([[[9.0], [7.0], [-3.0], [-8.0]]])
    labels, ious = torch.tensor([[1, 1, 0, 0]]), torch.tensor([[0.9, 0.6, 0.0, 0.0]])
    for shift in (0.0, -50.0):
        value, gradient = value_and_gradient(loss, logits + shift, labels, ious)
        assert value == 0
        assert not gradient.any()
    value, gradient = value_and_gradient(loss, -logits, labels, ious)
    assert value >= 0.5
    assert (gradient[0, :2] < 0).all()
    assert (gradient[0, 2:] > 0).all()
    assert gradient.sum().abs() < 1e-7  # what positives gain the others lose


@EACH
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("label", [-1, 0, 1])
def test_what_is_not_finite_is_never_silently_finite(loss, bad, label):
    logits = torch.zeros(1, 3, 2)
    logits[0, 1, 0] = bad
    value, _ = value_and_gradient(loss, logits, torch.tensor([[1, label, 0]]), torch.full((1, 3), 0.5))
    assert not value.isfinite()


def test_a_quality_that_is_nan_is_never_silently_finite():
    value, _ = value_and_gradient(
        RankSortLoss(), torch.zeros(1, 2, 2), torch.tensor([[0, 1]]), torch.tensor([[0.0, math.nan]])
    )
    assert not value.isfinite()


@EACH
@pytest.mark.parametrize("labels", [torch.tensor([[0, 0, -1]]), torch.full((1, 3), -1), torch.zeros(1, 0).long()])
def test_nothing_to_rank_is_no_loss(loss, labels):
    value, gradient = value_and_gradient(loss, torch.randn(1, labels.shape[1], 2), labels, torch.zeros(labels.shape))
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize(("loss", "naive"), [*LOSSES, (APLoss(1e-6), lambda x, y, q: reference.ap_loss(x, y, 1e-6))])
@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        ([1e8, 0.0, 2e8, -3.0], [1, 1, 0, 0]),
        ([1e8, 1e8, 1e20], [1, 0, 0]),
        ([-1e8, 3.0], [1, 0]),
        ([-1000.0, -999.8, -1000.3, -1000.1], [1, 0, 0, 0]),
        ([-1000.0, 5.0, 4.7, 5.2, 1e10], [1, 1, 0, 0, 0]),
        ([4.6, 4.6, 4.6], [1, 0, 0]),
        ([0.0, 1e30, 0.2, 2e30, -1e30], [1, 1, 0, 0, 0]),
    ],
)
def test_logits_of_any_size_equal_the_reference(loss, naive, logits, labels):
    logits, labels = torch.tensor(logits)[None, :, None], torch.tensor([labels])
    ious = torch.linspace(0.9, 0.1, labels.numel()).view_as(labels)
    value, gradient = value_and_gradient(loss, logits, labels, ious)
    expected, update = naive(logits.double(), labels, ious.double())
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gradient.double(), update, rtol=1e-6, atol=1e-9)


@EACH
def test_autocast_changes_nothing_and_shares_are_a_mean_over_passes(loss):
    torch.manual_seed(2)
    logits, labels, ious = torch.randn(2, 30, 4), torch.randint(-1, 5, (2, 30)), torch.rand(2, 30)
    expected, update = value_and_gradient(loss, logits, labels, ious)
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = value_and_gradient(loss, logits, labels, ious)
    assert torch.equal(value, expected)
    assert torch.equal(gradient, update)
    beside = {"ious": ious} if loss.needs_ious else {}
    torch.testing.assert_close(loss.share(logits, labels, None, 4, **beside), expected / 4)


@EACH
def test_a_second_backward_gives_the_same_gradient_and_extremes_stay_finite(loss):
    logits = (1e30 * torch.randn(1, 50, 2)).requires_grad_()
    labels, ious = torch.randint(0, 3, (1, 50)), torch.rand(1, 50)
    value = loss(logits, labels, **({"ious": ious} if loss.needs_ious else {}))
    first, second = (torch.autograd.grad(value, logits, retain_graph=True)[0] for _ in range(2))
    assert value.isfinite()
    assert first.isfinite().all()
    assert torch.equal(first, second)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"ious must be of shape \(1, 3\), got None"):
        RankSortLoss()(torch.zeros(1, 3, 2), torch.zeros(1, 3, dtype=torch.int64))
    for make in (APLoss, RankSortLoss):
        with pytest.raises(ValueError, match="delta must be positive, got 0"):
            make(0)
