"""RetinaNet: backbone, feature pyramid, and the two heads shared by all levels."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from drrepro.models.anchors import AnchorGrid
from drrepro.models.backbones import build_backbone
from drrepro.schema import Config, ModelConfig


class Head(nn.Module):
    """A tower of 3 x 3 convolutions with ReLU and a final 3 x 3 convolution to ``per_anchor`` values an anchor."""

    def __init__(self, config: ModelConfig, anchors: int, per_anchor: int, final_bias: float) -> None:
        super().__init__()
        self.per_anchor = per_anchor
        width = config.fpn_channels
        layers = [m for _ in range(config.head_convs) for m in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU(True))]
        self.tower = nn.Sequential(*layers)
        self.final = nn.Conv2d(width, anchors * per_anchor, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=config.head_std)
                nn.init.constant_(module.bias, final_bias if module is self.final else 0.0)  # type: ignore[arg-type]

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map the (B, C, h, w) of each level to one (B, A, per_anchor)."""
        outputs = [self.final(self.tower(level)) for level in levels]
        # channels are (anchor, value): (B, N * V, h, w) -> (B, h, w, N * V) -> (B, h * w * N, V)
        return torch.cat([o.permute(0, 2, 3, 1).reshape(len(o), -1, self.per_anchor) for o in outputs], dim=1)


class RetinaNet(nn.Module):
    """Map images to class logits and box deltas; losses and postprocessing are elsewhere."""

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        self.anchors = AnchorGrid(config)
        self.backbone, channels = build_backbone(config)
        width = config.fpn_channels
        # P6 comes from P5 in torchvision's RetinaNet, otherwise from C5 [M].
        last = LastLevelP6P7(width if config.convention == "torchvision" else channels[-1], width)
        last.use_P5 = config.convention == "torchvision"  # not where both merely have as many channels
        self.fpn = FeaturePyramidNetwork(channels, width, last)
        # A score of `prior` everywhere before the first step: b = -log((1 - prior) / prior).
        bias = -math.log((1 - config.prior) / config.prior)
        self.classifier = Head(config, self.anchors.per_cell, classes, bias)
        self.regressor = Head(config, self.anchors.per_cell, 4, 0.0)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2) and module.kernel_size == (3, 3):
                module.register_forward_pre_hook(_at_least_two_columns)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 3, H, W) to logits (B, A, K) and deltas (B, A, 4)."""
        levels = list(self.fpn(self.backbone(images)).values())
        return self.classifier(levels), self.regressor(levels)

    def anchors_of(self, images: Tensor) -> list[Tensor]:
        """Return the anchors of images (B, 3, H, W), (A_level, 4) a level."""
        return self.anchors.levels(images.shape[2], images.shape[3], images.device)

    def parameter_groups(self) -> Iterator[tuple[bool, nn.Parameter]]:
        """Yield (is it a bias, parameter) for everything that is trained."""
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                yield name.endswith("bias"), parameter


def build_detector(config: Config, classes: int, device: torch.device) -> RetinaNet:
    """Return the configured detector on a device, in the layout in which its convolutions are fastest."""
    model = RetinaNet(config.model, classes)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    return model


def _at_least_two_columns(convolution: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Add a column of zeros, such as padding brings anyway, to a feature map of one: the output is the same.

    Without it torch 2.14 on a CPU (oneDNN, bf16) leaves in the weight's gradient of a 3 x 3 convolution of stride 2
    over a map one column wide whatever the memory held before; only the kernel's middle column is written.
    """
    (x,) = inputs
    return (functional.pad(x, (0, 1)),) if x.shape[3] == 1 and x.device.type == "cpu" else inputs
