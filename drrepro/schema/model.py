"""The keys of model., matcher. and loss."""

import math
import re
from dataclasses import dataclass, field

from drrepro.schema.check import numbers, require


@dataclass
class ModelConfig:
    """RetinaNet [M]."""

    backbone: str = "resnet50"  # small | resnet18 | resnet34 | resnet50 | resnet101
    norm: str = "frozen"  # batch norm of a ResNet: frozen | batch (trained); frozen takes pretrained weights
    norm_eps: float = 0.0  # y = x * w / sqrt(var + eps); Caffe weights 0 [M], torchvision's ImageNet weights 1e-5
    stride_in_1x1: bool = True  # of a bottleneck: Caffe weights [M]; torchvision has it in the 3x3
    frozen_stages: int = 2  # the stem and so many residual stages minus one: 2 freezes stem and res2, 0 nothing
    fpn_channels: int = 256
    head_convs: int = 4
    head_std: float = 0.01
    prior: float = 0.5  # foreground probability that the final bias starts from; focal loss: 0.01 [R]
    # Where P6 comes from and the arithmetic of the anchors, see models/anchors.py: maskrcnn_benchmark | torchvision |
    # rounded (torchvision's rounding alone, for pyramids that torchvision does not have)
    convention: str = "maskrcnn_benchmark"
    anchor_sizes: list[float] = field(default_factory=lambda: [32.0, 64.0, 128.0, 256.0, 512.0])  # px, P3..P7
    anchor_scales: list[float] = field(default_factory=lambda: [1.0, 2 ** (1 / 3), 2 ** (2 / 3)])
    anchor_ratios: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])  # height / width
    box_weights: list[float] = field(default_factory=lambda: [10.0, 10.0, 5.0, 5.0])
    box_growth: float = 1000 / 16  # a decoded box is at most so many times wider or higher than its anchor

    @property
    def inclusive(self) -> bool:
        """Whether boxes are resized as inclusive pixels."""
        return self.convention == "maskrcnn_benchmark"

    def __post_init__(self) -> None:
        names = ("small", "resnet18", "resnet34", "resnet50", "resnet101")
        require(self.backbone in names, "model.backbone", self.backbone, f"must be one of {', '.join(names)}")
        require(0 <= self.frozen_stages <= 5, "model.frozen_stages", self.frozen_stages, "must be from 0 to 5")
        require(self.norm in ("frozen", "batch"), "model.norm", self.norm, "must be frozen or batch")
        for key in ("fpn_channels", "head_convs", "head_std", "box_growth"):
            require(getattr(self, key) > 0, f"model.{key}", getattr(self, key), "must be positive")
        for key in ("anchor_sizes", "anchor_scales", "anchor_ratios", "box_weights"):
            values = getattr(self, key)
            require(bool(values) and all(v > 0 for v in values), f"model.{key}", values, "needs positive values")
        require(0 < self.prior < 1, "model.prior", self.prior, "must lie between 0 and 1")
        conventions = ("maskrcnn_benchmark", "torchvision", "rounded")
        require(
            self.convention in conventions, "model.convention", self.convention, f"must be {', '.join(conventions)}"
        )
        eps_ok = self.norm_eps >= 0 if self.norm == "frozen" else self.norm_eps > 0
        require(eps_ok, "model.norm_eps", self.norm_eps, "must be positive, or 0 where the norm is frozen")
        require(
            len(self.anchor_sizes) == 5, "model.anchor_sizes", self.anchor_sizes, "needs one size a level, P3 to P7"
        )
        require(len(self.box_weights) == 4, "model.box_weights", self.box_weights, "needs four weights")


@dataclass
class MatcherConfig:
    """Which anchors are foreground, background and ignored."""

    fg_iou: float = 0.5
    bg_iou: float = 0.5  # focal loss: 0.4, and anchors between the two are ignored [M]
    low_quality: bool = True  # also the anchors that tie for a box's best IoU [M]

    def __post_init__(self) -> None:
        ordered = 0 <= self.bg_iou <= self.fg_iou <= 1
        require(ordered, "matcher.bg_iou", self.bg_iou, f"needs 0 <= bg_iou <= fg_iou <= 1, fg_iou is {self.fg_iou}")


@dataclass
class LossConfig:
    """What all losses share: the box regression [M]; each adds its own parameters, see drrepro/losses."""

    name: str = "unnamed"
    _target_: str | None = None  # the class of a loss that is not drrepro's, as in module.Class
    box_beta: float = 0.11  # smooth L1
    box_normalizer: float = 4.0  # the box loss is divided by max(1, box_normalizer * positives)
    # Over which images positives are counted, to divide by: step, all of them; or part, as the paper's code does [M]:
    # each 2 that follow one another, its images of a GPU, the step's loss being the mean over these
    normalize: str = "step"

    def __post_init__(self) -> None:
        require(re.fullmatch(r"[\w.]+", self.name) is not None, "loss.name", self.name, "takes letters, digits and ._")
        normalize_ok = self.normalize in ("step", "part")
        require(normalize_ok, "loss.normalize", self.normalize, "must be step or part")
        for key in ("box_beta", "box_normalizer"):
            require(getattr(self, key) > 0, f"loss.{key}", getattr(self, key), "must be positive")
        for key, value in numbers(self, "loss."):
            require(math.isfinite(value), key, value, "must be finite")
