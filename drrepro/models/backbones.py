"""Backbones that return C3, C4 and C5 (strides 8, 16 and 32), randomly initialised."""

from collections import OrderedDict
from functools import partial
from itertools import pairwise

import torchvision
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FrozenBatchNorm2d

from drrepro.schema import ModelConfig

SMALL_WIDTHS = [16, 32, 64, 128, 256]


class SmallBackbone(nn.Module):
    """A stem and four residual blocks, each halving the resolution: 1.2 million weights, for a CPU."""

    def __init__(self) -> None:
        super().__init__()
        norm, first = nn.BatchNorm2d, SMALL_WIDTHS[0]
        self.stem = nn.Sequential(nn.Conv2d(3, first, 3, stride=2, padding=1, bias=False), norm(first), nn.ReLU(True))
        self.layers = nn.ModuleList()
        for wide_in, wide_out in pairwise(SMALL_WIDTHS):
            shortcut = nn.Sequential(nn.Conv2d(wide_in, wide_out, 1, stride=2, bias=False), norm(wide_out))
            self.layers.append(resnet.BasicBlock(wide_in, wide_out, 2, shortcut, norm_layer=norm))

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Map (B, 3, H, W) to C3, C4, C5."""
        x = self.layers[0](self.stem(images))
        features = OrderedDict()
        for name, layer in zip(("c3", "c4", "c5"), self.layers[1:], strict=True):
            x = layer(x)
            features[name] = x
        return features


def build_backbone(config: ModelConfig) -> tuple[nn.Module, list[int]]:
    """Return the configured backbone and the channels of its C3, C4 and C5."""
    if config.backbone == "small":
        return SmallBackbone(), SMALL_WIDTHS[2:]
    norm = partial(FrozenBatchNorm2d if config.norm == "frozen" else nn.BatchNorm2d, eps=config.norm_eps)
    body = getattr(torchvision.models, config.backbone)(weights=None, norm_layer=norm)
    if config.stride_in_1x1:
        for layer in (body.layer2, body.layer3, body.layer4):
            _stride_in_1x1(layer[0])
    stages = [nn.ModuleList([body.conv1, body.bn1]), body.layer1, body.layer2, body.layer3, body.layer4]
    for stage in stages[: config.frozen_stages]:
        stage.requires_grad_(False)
    width = body.fc.in_features  # of C5
    return IntermediateLayerGetter(body, {"layer2": "c3", "layer3": "c4", "layer4": "c5"}), [
        width // 4,
        width // 2,
        width,
    ]


def _stride_in_1x1(block: nn.Module) -> None:
    """Move a bottleneck's stride from its 3x3 to its first 1x1; the basic blocks of ResNet-18 and 34 have no 1x1."""
    if isinstance(block, resnet.Bottleneck):
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
