"""Balanced cross-entropy, quality focal and varifocal loss against their papers' formulas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drrepro.losses import BalancedCrossEntropy, QualityFocalLoss, VarifocalLoss, reference
from drrepro.losses.contract import Normalizer
from tests.losses.test_losses import problems

QUALITY = [
    (QualityFocalLoss(), reference.quality_focal_loss),
    (QualityFocalLoss(1.5), lambda x, y, q: reference.quality_focal_loss(x, y, q, 1.5)),
    (VarifocalLoss(), reference.varifocal_loss),
    (VarifocalLoss(0.5, 1.5), lambda x, y, q: reference.varifocal_loss(x, y, q, 0.5, 1.5)),
]
IOUS = st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1))


def assert_same(value, expected, logits):
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    (gradient,) = torch.autograd.grad(value, logits)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize(("loss", "naive"), QUALITY)
@settings(deadline=None, max_examples=60)
@given(problem=problems(), data=st.data())
def test_quality_losses_equal_the_reference(loss, naive, problem, data):
    logits, labels = problem
    ious = torch.tensor(data.draw(st.lists(IOUS, min_size=labels.numel(), max_size=labels.numel()))).view_as(labels)
    assert_same(loss(logits, labels, ious=ious), naive(logits, labels, ious), logits)


@settings(deadline=None, max_examples=60)
@given(problem=problems(), alpha=st.floats(0, 1))
def test_balanced_cross_entropy_equals_the_reference(problem, alpha):
    logits, labels = problem
    value = BalancedCrossEntropy(alpha)(logits, labels)
    assert_same(value, reference.balanced_cross_entropy(logits, labels, alpha), logits)


@pytest.mark.parametrize("loss", [QualityFocalLoss(), VarifocalLoss()])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("label", [-1, 0, 1])
def test_what_is_not_finite_is_never_silently_finite(loss, bad, label):
    logits = torch.zeros(1, 3, 2)
    logits[0, 1, 0] = bad
    labels = torch.tensor([[0, label, 0]])
    assert not loss(logits, labels, ious=torch.full(labels.shape, 0.5)).isfinite()


@pytest.mark.parametrize("loss", [QualityFocalLoss(), VarifocalLoss()])
def test_a_quality_that_is_nan_is_never_silently_finite(loss):
    logits, labels = torch.zeros(1, 2, 2), torch.tensor([[0, 1]])
    assert not loss(logits, labels, ious=torch.tensor([[0.0, math.nan]])).isfinite()


@pytest.mark.parametrize("loss", [QualityFocalLoss(), VarifocalLoss()])
def test_shares_add_up_and_qualities_are_needed(loss):
    torch.manual_seed(0)
    logits, labels, ious = torch.randn(4, 9, 3), torch.randint(-1, 4, (4, 9)), torch.rand(4, 9)
    normalizer = Normalizer((labels > 0).sum(), torch.tensor(4), 1)
    halves = [loss.share(logits[i], labels[i], normalizer, 2, ious=ious[i]) for i in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(sum(halves), loss(logits, labels, ious=ious))
    with pytest.raises(ValueError, match=r"ious must be of shape \(4, 9\), got None"):
        loss(logits, labels)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QualityFocalLoss(0.5), "beta must be at least 1, got 0.5"),
        (lambda: VarifocalLoss(-1), "alpha must not be negative, got -1"),
        (lambda: VarifocalLoss(gamma=-1), "gamma must not be negative, got -1"),
        (lambda: BalancedCrossEntropy(2), "alpha must be from 0 to 1, got 2"),
    ],
)
def test_wrong_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
