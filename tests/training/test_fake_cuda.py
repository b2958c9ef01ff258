"""A step under fake CUDA tensors: no shape depends on data, no value is read, no tensor is on another device.

Without a GPU autograd refuses to go back through fake CUDA tensors, so the backward pass is that of fake meta tensors,
which take neither shapes from data nor values either. PyTorch's fused update, a kernel, has no fake: what it is given
is looked at.
"""

from contextlib import nullcontext

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from drrepro.bench.step import make_batch
from drrepro.config import compose
from drrepro.detection import pipeline
from drrepro.evaluation.densities import FINE
from drrepro.models.anchors import AnchorGrid, match
from drrepro.models.retinanet import RetinaNet
from drrepro.training.loop import build_learner
from drrepro.training.step import add_gradients, with_targets

CUDA, META = torch.device("cuda"), torch.device("meta")
WITHOUT_WAITS = ["focal", "dr", "balanced_ce", "quality_focal", "varifocal"]


def fake_learner(config, device):
    with device:
        model = RetinaNet(config.model, 80)
    model.anchors = AnchorGrid(config.model)  # made on the CPU, as always
    return build_learner(model, config, device)


def configured(*overrides):
    quick = ["model.backbone=resnet18", "model.fpn_channels=16", "model.head_convs=1"]
    return compose(["experiment=table1", "input.scale=128", "schedule.images_per_step=4", *quick, *overrides])


@pytest.fixture(autouse=True)
def _unpinned(monkeypatch):
    """Of fake tensors none is pinned."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)


@pytest.fixture
def no_autocast(monkeypatch):
    """Of meta tensors there is none."""
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **keywords: nullcontext())


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("loss", WITHOUT_WAITS)
@pytest.mark.parametrize("normalize", ["step", "part"])
def test_a_step_runs_whole_on_fake_cuda_tensors(loss, normalize, precision, accumulate, monkeypatch):
    config = configured(f"loss={loss}", f"loss.normalize={normalize}", f"schedule.precision={precision}")
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    with FakeTensorMode():
        learner = fake_learner(config, CUDA)
        parts = [with_targets(make_batch(config, 80, CUDA), learner.model, config) for _ in range(accumulate)]

        def backward(loss):
            assert loss.device.type == "cuda"
            for parameter in learner.model.parameters():
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None

        def update(parameters, gradients, momenta, *, grad_scale, found_inf, **constants):
            assert {tensor.device.type for tensor in (*parameters, *gradients, *momenta, found_inf)} == {"cuda"}
            assert not any(isinstance(constant, torch.Tensor) for constant in constants.values())
            updated.append(len(parameters))

        updated = []
        monkeypatch.setattr(torch.Tensor, "backward", backward)
        monkeypatch.setattr(torch, "_fused_sgd_", update)
        assert learner.scaler.is_enabled() == (precision == "fp16")
        with Copies() as copies:
            learner.step(0, parts)
        assert copies.found == []
        assert sum(updated) == sum(parameter.requires_grad for parameter in learner.model.parameters())
        assert {learner.terms.device.type, learner.failed.device.type} == {"cuda"}
        with pytest.raises(DataDependentOutputException):
            learner.read()  # which alone waits


@pytest.mark.parametrize("loss", WITHOUT_WAITS)
def test_the_way_back_takes_no_shape_from_data_and_reads_no_value(loss, no_autocast):
    config = configured(f"loss={loss}", "schedule.accumulate=2")
    with FakeTensorMode():
        learner = fake_learner(config, META)
        parts = [with_targets(make_batch(config, 80, META), learner.model, config) for _ in range(2)]
        terms = add_gradients(learner.detector, learner.loss, learner.scaler, parts, config)
        assert terms.shape == (2,)
        trained = [parameter for parameter in learner.model.parameters() if parameter.requires_grad]
        assert all(parameter.grad.shape == parameter.shape for parameter in trained)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", WITHOUT_WAITS)
def test_the_way_back_through_a_loss_in_each_precision(loss, dtype, no_autocast):
    with FakeTensorMode():
        learner = fake_learner(configured(f"loss={loss}"), META)
        logits = torch.randn(2, 50, 80, dtype=dtype, device=META, requires_grad=True)
        labels = torch.zeros(2, 50, dtype=torch.int64, device=META)
        beside = {"ious": torch.rand(2, 50, device=META)} if learner.loss.needs_ious else {}
        learner.loss(logits, labels, **beside).backward()
        assert logits.grad.dtype == dtype


class Copies(TorchDispatchMode):
    """Notes each operation whose result is on another device than one of its tensors, numbers on the CPU left out."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        tensors = [leaf for leaf in tree_leaves((arguments, keywords, result)) if isinstance(leaf, torch.Tensor)]
        if len({tensor.device.type for tensor in tensors if tensor.dim()}) > 1:
            self.found.append(str(function))
        return result


def test_copies_are_noticed():
    with FakeTensorMode(), Copies() as copies:
        there = torch.zeros(3, device=CUDA)
        there.cpu().to(CUDA)
        there.new_tensor([1.0, 2.0, 3.0])
    assert len(copies.found) >= 3


def test_a_batch_is_evaluated_with_one_copy_to_the_host(monkeypatch):
    config, copied = configured(), []

    def to_host(tensors):
        copied.append(torch.cat([tensor.contiguous().view(torch.int32).flatten() for tensor in tensors]).numel())

    with FakeTensorMode():
        model = fake_learner(config, CUDA).model.eval()
        batch = make_batch(config, 80, CUDA)
        monkeypatch.setattr(pipeline, "_edges", lambda device: torch.zeros(FINE - 1, device=device))
        monkeypatch.setattr(pipeline, "HostCopy", to_host)
        model.anchors_of(batch.images)  # kept from the first batch of a size on
        with Copies() as copies:
            anchors = torch.cat(model.anchors_of(batch.images))
            labels = [match(anchors, batch.boxes, batch.labels, config.matcher)[0] for _ in range(2)]
            pipeline.propose(model, batch, config, 0.05, labels)
    assert copies.found == []
    assert len(copied) == 1  # candidates, and for each matcher the histograms of both
    assert copied[0] > len(batch.images) * 2 * 2 * FINE


@pytest.mark.parametrize("loss", ["ghm_c", "ap", "rank_sort"])
def test_what_fails_does_so_here_too(loss):
    config = configured(f"loss={loss}")
    with FakeTensorMode():
        learner = fake_learner(config, CUDA)
        parts = [with_targets(make_batch(config, 80, CUDA), learner.model, config)]
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
            learner.step(0, parts)
