import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from drrepro.losses import (
    BalancedCrossEntropy,
    DRLoss,
    FocalLoss,
    QualityFocalLoss,
    VarifocalLoss,
    reference,
    stream,
)

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
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("label", [-1, 0, 1])
def test_what_is_not_finite_is_never_silently_finite(loss, bad, label):
    logits = torch.zeros(1, 3, 2)
    logits[0, 1, 0] = bad
    assert not loss(logits, torch.tensor([[0, label, 0]])).isfinite()


@pytest.mark.parametrize(("loss", "naive"), LOSSES)
@pytest.mark.parametrize("label", [-1, 0, 1])
def test_one_anchor_of_one_class(loss, naive, label):
    logits = torch.tensor([[[0.3]]], dtype=torch.float64)
    torch.testing.assert_close(loss(logits, torch.tensor([[label]])), naive(logits, torch.tensor([[label]])))


@pytest.mark.parametrize("loss", [DRLoss(), FocalLoss()])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_is_computed_in_float32(loss, dtype):
    torch.manual_seed(3)
    logits = torch.randn(2, 50, 4).to(dtype).requires_grad_()
    labels = torch.randint(-1, 5, (2, 50))
    exact = logits.detach().double().requires_grad_()
    value, expected = loss(logits, labels), loss(exact, labels)
    value.backward()
    expected.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert logits.grad.dtype == dtype
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=max(rounding, 2e-5), atol=1e-7)


@pytest.mark.parametrize("loss", [DRLoss(), FocalLoss()])
def test_a_scaled_loss_of_float16_has_gradients_that_do_not_underflow(loss):
    """As a GradScaler does it: at the prior of 0.01 a negative's gradient is far below float16's smallest number."""
    logits = torch.full((2, 20_000, 20), -4.6, dtype=torch.float16, requires_grad=True)
    labels = torch.zeros(2, 20_000, dtype=torch.int64)
    labels[:, :200] = 1
    exact = logits.detach().float().requires_grad_()
    (2.0**14 * loss(logits, labels)).backward()
    (2.0**14 * loss(exact, labels)).backward()
    negatives = exact.grad[:, 200:]
    assert negatives.min() > 0
    torch.testing.assert_close(logits.grad[:, 200:].float(), negatives, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("loss", [DRLoss(), FocalLoss()])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_sixteen_million_logits_agree_with_float64(loss, spread):
    """With no spread every rounding goes the same way, so nothing averages out."""
    torch.manual_seed(4)
    logits = spread * torch.randn(1, 200_000, 80) - 4.595
    labels = torch.zeros(1, 200_000, dtype=torch.int64)
    labels[0, :500] = torch.randint(1, 81, (500,))
    labels[0, 500:1500] = -1
    assert loss(logits, labels).item() == pytest.approx(loss(logits.double(), labels).item(), rel=1e-6)


@pytest.mark.parametrize("loss", [DRLoss(), DRLoss(scope="batch"), FocalLoss()])
@pytest.mark.parametrize("shape", [(3, 700, 5), (1, 30_000, 9)])
def test_pieces_make_no_difference(loss, shape, monkeypatch):
    torch.manual_seed(5)
    logits, labels = torch.randn(shape, dtype=torch.float64), torch.randint(-1, shape[2] + 1, shape[:2])
    results = []
    for size in (2**24, 2**17, 997):
        monkeypatch.setattr(stream, "CPU_PIECE", size)
        leaf = logits.clone().requires_grad_()
        loss(leaf, labels).backward()
        results.append(leaf.grad)
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-15)  # it changes its sign near 1e-11
    torch.testing.assert_close(results[0], results[2], rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("loss", [DRLoss(), DRLoss(scope="batch"), FocalLoss()])
@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3)])
def test_nothing_to_rank_is_no_loss(loss, shape):
    logits = torch.zeros(shape, requires_grad=True)
    value = loss(logits, torch.zeros(shape[:2], dtype=torch.int64))
    value.backward()
    assert value.item() == 0
    assert logits.grad.shape == shape


@pytest.mark.parametrize("loss", [DRLoss(), FocalLoss()])
def test_the_layout_of_the_logits_does_not_matter(loss):
    torch.manual_seed(2)
    logits, labels = torch.randn(2, 4, 30, dtype=torch.float64, requires_grad=True), torch.randint(-1, 5, (2, 30))
    found = [torch.autograd.grad(loss(x, labels), logits) for x in (logits.mT, logits.mT.contiguous())]
    assert torch.equal(found[0][0], found[1][0])


@pytest.mark.parametrize("loss", [DRLoss(), FocalLoss()])
def test_a_second_backward_gives_the_same_gradient(loss):
    torch.manual_seed(9)
    logits, labels = torch.randn(2, 30, 4, requires_grad=True), torch.randint(-1, 5, (2, 30))
    value = loss(logits, labels)
    (first,) = torch.autograd.grad(value, logits, retain_graph=True)
    (second,) = torch.autograd.grad(2 * value, logits)
    torch.testing.assert_close(second, 2 * first)


class Recorder(TorchDispatchMode):
    """Names of the operators that are dispatched."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        assert not any(isinstance(a, torch.Tensor) and a.dtype == torch.bool for a in flat(args)) or "index" not in str(
            func
        )
        return func(*args, **(kwargs or {}))


def flat(values):
    for value in values:
        if isinstance(value, list | tuple):
            yield from flat(value)
        else:
            yield value


WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "equal", "is_nonzero", "item"}


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(stream, "maybe_positive", lambda labels: torch.arange(labels.numel()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("classes", [DRLoss, FocalLoss, BalancedCrossEntropy, QualityFocalLoss, VarifocalLoss])
def test_all_anchors_as_on_a_gpu_give_what_the_positives_do(classes, dtype, request):
    torch.manual_seed(3)
    loss, labels, ious = classes(), torch.randint(-1, 5, (3, 50)), torch.rand(3, 50)
    labels[1] = 0
    logits = (4 * torch.randn(3, 50, 4)).to(dtype).requires_grad_()
    beside = {"ious": ious} if loss.needs_ious else {}
    found = []
    for fixture in (None, "as_on_a_gpu"):
        if fixture:
            request.getfixturevalue(fixture)
        value = loss(logits, labels, **beside)
        found.append((value, *torch.autograd.grad(value, logits)))
    torch.testing.assert_close(*found, rtol=0 if dtype == torch.bfloat16 else 1e-12, atol=0)


@pytest.mark.parametrize("loss", [DRLoss(), DRLoss(scope="batch"), FocalLoss(), FocalLoss(1.5)])
@pytest.mark.usefixtures("as_on_a_gpu")
def test_nothing_makes_a_gpu_wait(loss):
    logits = torch.randn(2, 50, 4, requires_grad=True)
    labels = torch.randint(-1, 5, (2, 50))
    with Recorder() as recorder:
        loss(logits, labels).backward()
    assert {"sigmoid", "scatter_reduce_"} <= recorder.names  # it does watch forward and backward
    assert not recorder.names & WAITING
    with Recorder() as recorder:
        (logits > 0).nonzero()
    assert recorder.names & WAITING


@pytest.mark.parametrize("loss", [DRLoss(), FocalLoss()])
def test_a_compiled_module_breaks_its_graph_once_at_the_most(loss):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.loss = torch.nn.Linear(3, 4), loss

        def forward(self, x, labels):
            return 2 * self.loss(self.linear(x), labels)

    torch.manual_seed(6)
    model, x, labels = Model(), torch.randn(2, 5, 3), torch.randint(-1, 5, (2, 5))
    model(x, labels).backward()
    expected = model.linear.weight.grad.clone()
    model.zero_grad()
    compiled = torch.compile(model, backend="aot_eager")
    compiled(x, labels).backward()
    torch.testing.assert_close(model.linear.weight.grad, expected)
    assert torch._dynamo.explain(model)(x, labels).graph_break_count <= 1


def rank(number, folder, logits, labels):
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=number, world_size=2)
    own = logits[number::2].clone().requires_grad_()
    value = DRLoss(scope="global")(own, labels[number::2])
    value.backward()
    torch.save((value.detach(), own.grad), f"{folder}/{number}.pt")
    torch.distributed.destroy_process_group()


def test_global_scope_over_two_processes_is_the_batch_of_both(tmp_path):
    torch.manual_seed(7)
    logits, labels = torch.randn(3, 20, 4), torch.randint(-1, 5, (3, 20))  # two images on one rank, one on the other
    torch.multiprocessing.spawn(rank, (str(tmp_path), logits, labels), nprocs=2)
    whole = logits.clone().requires_grad_()
    expected = DRLoss(scope="batch")(whole, labels)
    expected.backward()
    for number in (0, 1):
        value, gradient = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        torch.testing.assert_close(value, expected.detach())
        torch.testing.assert_close(gradient, whole.grad[number::2])


@pytest.mark.parametrize("loss", [DRLoss(), FocalLoss()])
def test_autocast_changes_nothing(loss):
    torch.manual_seed(8)
    logits, labels = torch.randn(2, 30, 4), torch.randint(-1, 5, (2, 30))
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, labels)
    assert torch.equal(value, loss(logits, labels))


@pytest.mark.parametrize("loss", [DRLoss(), FocalLoss()])
def test_wrong_arguments_are_named(loss):
    with pytest.raises(ValueError, match=r"logits.*\(2, 3\)"):
        loss(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"logits.*\(2, 3, 0\)"):
        loss(torch.zeros(2, 3, 0), torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"labels.*float32"):
        loss(torch.zeros(2, 3, 1), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"labels.*\(2, 4\)"):
        loss(torch.zeros(2, 3, 1), torch.zeros(2, 4, dtype=torch.int64))
    for value in (-2, 3):
        with pytest.raises(ValueError, match=f"labels must be from -1 to 2, got {value}"):
            loss(torch.zeros(1, 3, 2), torch.tensor([[0, value, 1]]))


def test_wrong_parameters_are_named():
    for arguments, message in [
        ({"h": 1.0}, "h must exceed 1 and be at most 500, got 1.0"),
        ({"h": 1e6}, "h must exceed 1 and be at most 500"),
        ({"pos_lambda": 0.0}, "pos_lambda must be at least 0.01, got 0.0"),
        ({"scope": "x"}, "scope must be image, batch or global, got 'x'"),
        ({"L": 0}, "L must be positive, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            DRLoss(**arguments)
    with pytest.raises(ValueError, match="gamma must be non-negative, got -1"):
        FocalLoss(gamma=-1)
    with pytest.raises(ValueError, match="alpha must be from 0 to 1, got 2"):
        FocalLoss(alpha=2)
