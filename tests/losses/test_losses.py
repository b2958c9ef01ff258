import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drrepro.losses import DRLoss, FocalLoss
from tests.losses import reference

LOSSES = [
    (DRLoss(), reference.dr_loss),
    (DRLoss(scope="batch"), lambda x, y: reference.dr_loss(x, y, scope="batch")),
    (DRLoss(0.7, 2.5, 4.0, 0.3, 1.5), lambda x, y: reference.dr_loss(x, y, 0.7, 2.5, 4.0, 0.3, 1.5)),
    (FocalLoss(), reference.focal_loss),
    (FocalLoss(1.5, 0.4), lambda x, y: reference.focal_loss(x, y, 1.5, 0.4)),
]


@st.composite
def problems(draw):
    images, anchors, classes = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 3))
    values = st.floats(-8, 8, allow_nan=False)
    logits = draw(st.lists(values, min_size=images * anchors * classes, max_size=images * anchors * classes))
    labels = draw(st.lists(st.integers(-1, classes), min_size=images * anchors, max_size=images * anchors))
    shaped = torch.tensor(logits, dtype=torch.float64).view(images, anchors, classes)
    return shaped.requires_grad_(), torch.tensor(labels).view(images, anchors)


@pytest.mark.parametrize(("loss", "naive"), LOSSES)
@settings(deadline=None, max_examples=40)
@given(problem=problems())
def test_value_and_gradient_equal_the_reference(loss, naive, problem):
    logits, labels = problem
    value, expected = loss(logits, labels), naive(logits, labels)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    (gradient,) = torch.autograd.grad(value, logits)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("loss", [loss for loss, _ in LOSSES])
def test_gradcheck(loss):
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[0, 1, 3, -1, 0], [0, 0, -1, 0, 0]])
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits)


@pytest.mark.parametrize("loss", [DRLoss(), DRLoss(scope="batch"), FocalLoss()])
def test_ignoring_an_anchor_equals_removing_it_and_order_does_not_matter(loss):
    torch.manual_seed(1)
    logits, labels = torch.randn(2, 6, 3, dtype=torch.float64), torch.tensor([[0, 1, -1, 2, 0, 0]] * 2)
    kept = labels[0] >= 0
    torch.testing.assert_close(loss(logits, labels), loss(logits[:, kept], labels[:, kept]))
    order = torch.randperm(6)
    torch.testing.assert_close(loss(logits, labels), loss(logits[:, order], labels[:, order]))


def test_scopes_agree_on_one_image_and_the_margin_raises_the_loss():
    torch.manual_seed(2)
    logits, labels = torch.randn(1, 9, 4), torch.randint(-1, 5, (1, 9))
    torch.testing.assert_close(DRLoss()(logits, labels), DRLoss(scope="batch")(logits, labels))
    values = [DRLoss(margin=margin)(logits, labels).item() for margin in (0.0, 0.25, 0.5, 1.0)]
    assert values == sorted(values)
    assert len(set(values)) == 4


def test_without_positives_the_negatives_are_still_pushed_below_one_minus_the_margin():
    logits = torch.zeros(1, 3, 2, requires_grad=True)
    value = DRLoss()(logits, torch.zeros(1, 3, dtype=torch.int64))
    expected = 4 * math.log1p(math.exp(6 * (0.5 - 1 + 0.5))) / 6
    assert value.item() == pytest.approx(expected)
    value.backward()
    assert (logits.grad > 0).all()


@pytest.mark.parametrize("loss", [DRLoss(), DRLoss(scope="batch"), FocalLoss()])
def test_all_ignored_is_zero_with_zero_gradient(loss):
    logits = torch.randn(2, 3, 2, requires_grad=True)
    value = loss(logits, torch.full((2, 3), -1))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("loss", [DRLoss(), FocalLoss()])
@pytest.mark.parametrize("scale", [0.0, 100.0, 1e4])
def test_saturated_scores_stay_finite(loss, scale):
    logits = (scale * torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])).requires_grad_()
    value = loss(logits, torch.tensor([[2, 0]]))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", [DRLoss(), DRLoss(scope="batch"), FocalLoss()])
@pytest.mark.parametrize("bad", [math.nan])
def test_nan_is_never_silently_finite(loss, bad):
    logits = torch.zeros(1, 3, 2)
    logits[0, 1, 0] = bad
    assert not loss(logits, torch.tensor([[0, 1, 0]])).isfinite()


@pytest.mark.parametrize("loss", [DRLoss(), FocalLoss()])
def test_wrong_arguments_are_named(loss):
    with pytest.raises(ValueError, match=r"logits.*\(2, 3\)"):
        loss(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"labels.*float32"):
        loss(torch.zeros(2, 3, 1), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"labels.*\(2, 4\)"):
        loss(torch.zeros(2, 3, 1), torch.zeros(2, 4, dtype=torch.int64))


def test_wrong_parameters_are_named():
    for arguments, message in [
        ({"h": 1.0}, "h must exceed 1, got 1.0"),
        ({"scope": "x"}, "scope"),
        ({"L": 0}, "L must"),
    ]:
        with pytest.raises(ValueError, match=message):
            DRLoss(**arguments)
    with pytest.raises(ValueError, match="gamma must be non-negative, got -1"):
        FocalLoss(gamma=-1)
