"""Feature maps of one cell in bf16, where the library leaves gradients unwritten."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from drrepro.config import compose
from drrepro.losses import DRLoss, FocalLoss
from drrepro.models.retinanet import RetinaNet


def dirty_memory():
    """Free blocks of all sizes that hold a large number, which the allocator hands out next."""
    _ = [torch.full((2**k,), 1e30) for k in range(4, 22) for _ in range(4)]


def gradients(backbone, loss, height, width, precision):
    torch.manual_seed(0)
    config = compose([f"model={backbone}"])
    model = RetinaNet(config.model, 5).to(memory_format=torch.channels_last).eval()  # no statistics over one cell
    images = torch.randn(2, 3, height, width).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits, deltas = model(images)
    labels = torch.arange(logits.shape[1]).expand(2, -1) % 6
    total = loss(logits, labels) + deltas.float().square().mean()
    dirty_memory()
    total.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("loss", [DRLoss(), FocalLoss()], ids=["dr", "focal"])
@pytest.mark.parametrize(
    ("backbone", "height", "width"),
    [
        *(("small", height, width) for height, width in [(16, 16), (32, 16), (16, 48), (32, 32), (48, 64), (64, 64)]),
        ("resnet18", 32, 32),
    ],
)
def test_gradients_in_bf16_are_those_in_fp32(backbone, height, width, loss):
    """Rounding to 8 bits a value moves a gradient by some per cent; unwritten memory by any number."""
    exact, rounded = (gradients(backbone, loss, height, width, precision) for precision in ("fp32", "bf16"))
    for name, gradient in exact.items():
        assert torch.isfinite(rounded[name]).all(), name
        assert (rounded[name] - gradient).norm() <= 0.2 * gradient.norm() + 1e-4, name


def test_a_convolution_over_one_column_is_the_same_with_the_column_of_zeros():
    model = RetinaNet(compose([]).model, 5)
    convolution = model.fpn.extra_blocks.p7
    assert len(convolution._forward_pre_hooks) == 1
    plain = nn.Conv2d(*convolution.weight.shape[:2], 3, stride=2, padding=1)
    plain.load_state_dict(convolution.state_dict())
    for height in (1, 2, 3):
        x = torch.randn(2, 64, height, 1)
        torch.testing.assert_close(convolution(x), plain(x))
    x = torch.randn(2, 64, 3, 2)
    assert torch.equal(convolution(x), functional.conv2d(x, plain.weight, plain.bias, 2, 1))  # nothing is added
