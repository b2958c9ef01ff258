import pytest
import torch

from drrepro.losses import DRLoss
from drrepro.theory import gradient


@pytest.mark.parametrize("h", [1.5, 3.5, 20.0])
def test_the_closed_form_is_the_gradient(h):
    found = gradient.check(h, problems=5)
    assert found.autograd < 1e-12
    assert found.finite_differences < 1e-6


def test_a_wrong_formula_would_be_seen(monkeypatch):
    right = gradient.closed_form

    def wrong(*arguments):
        positive, negative = right(*arguments)
        return positive, 1.001 * negative

    monkeypatch.setattr(gradient, "closed_form", wrong)
    assert gradient.check(3.5, problems=2).autograd > 1e-4


def test_it_is_the_loss_of_the_project():
    torch.manual_seed(0)
    logits = torch.randn(1, 9, 1, dtype=torch.float64)
    labels = torch.tensor([[1, 1, 0, 0, 0, 0, 0, 0, 0]])
    p = logits.sigmoid().flatten()
    expected = gradient.loss(p[:2], p[2:], 3.5, 1.0, 6.0)
    torch.testing.assert_close(DRLoss(tau=1.0)(logits, labels), expected)


def test_the_figure_has_a_line_for_each_lambda():
    figure = gradient.draw([2.0, 10.0])
    assert len(figure.axes[0].lines) == 2
