"""The configuration: every constant of the paper's protocol is a field, with the paper's value as its default.

Sources: [S] the paper's supplementary, [R] the authors' release, [M] maskrcnn-benchmark, on which the paper
trains, [I] inferred because all of these are silent. Files in conf/ override fields; nothing else does.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from drrepro.errors import UsageError


def require(ok: bool, key: str, value: object, rule: str) -> None:
    """Raise UsageError, naming the key, its value and the rule, unless ``ok``."""
    if not ok:
        raise UsageError(f"{key}={value}: {rule}")


@dataclass
class DataConfig:
    """A data set on disk. Relative json, image and split entries are looked up under ``root``."""

    name: str = "coco2017"
    format: str = "coco"  # coco: one json and one image folder a split; voc: JPEGImages, Annotations, ImageSets
    embedded: bool = False  # written by `drrepro data make` under $DRREPRO_DATA
    paper: str | None = None  # the data set of the paper that this one stands for: coco2017 or voc2007
    root: str | None = None  # default: $DRREPRO_DATA/<name>
    train_json: str | None = None
    train_images: str | None = None
    tune_json: str | None = None
    tune_images: str | None = None
    test_json: str | None = None
    test_images: str | None = None
    train_split: str | None = None
    tune_split: str | None = None
    test_split: str | None = None
    submission: str | None = None  # the evaluation server's name of a coco test split whose objects it keeps secret
    classes: list[str] | None = None  # of a voc folder; default: as found in its annotations
    bad_images: str = "fail"  # that are missing, unreadable or not of the annotated size: fail | drop, and list them
    sha256: str | None = None  # of an embedded set, filled in when composed: other images, other run

    def __post_init__(self) -> None:
        require(
            re.fullmatch(r"[\w.-]+", self.name) is not None, "data.name", self.name, "takes letters, digits and ._-"
        )
        require(self.format in ("coco", "voc"), "data.format", self.format, "must be coco or voc")
        if self.submission is not None:
            valid = self.format == "coco" and re.fullmatch(r"[a-z0-9-]+", self.submission) is not None
            require(valid, "data.submission", self.submission, "takes a-z, 0-9 and -, with data.format=coco")
        require(self.bad_images in ("fail", "drop"), "data.bad_images", self.bad_images, "must be fail or drop")
        require(self.paper in (None, "coco2017", "voc2007"), "data.paper", self.paper, "must be coco2017 or voc2007")


@dataclass
class InputConfig:
    """Resizing, augmentation and normalisation [M]."""

    scale: int = 800  # short side, px
    max_ratio: float = 1333 / 800  # long side at most round(scale * max_ratio): 667 at 400 [R]
    size_divisor: int = 32
    flip: float = 0.5
    bgr: bool = True
    mean: list[float] = field(default_factory=lambda: [102.9801, 115.9465, 122.7717])  # of the 0-255 channels, in order
    std: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])
    skip_empty: bool = True  # images without a box are left out of training
    group_by_aspect: bool = True  # a training batch is of portraits or of landscapes: less padding

    def __post_init__(self) -> None:
        require(self.scale >= 16, "input.scale", self.scale, "the short side needs at least 16 px")
        require(self.max_ratio >= 1, "input.max_ratio", self.max_ratio, "must be at least 1")
        require(self.size_divisor >= 1, "input.size_divisor", self.size_divisor, "must be at least 1")
        require(0 <= self.flip <= 1, "input.flip", self.flip, "is a probability")
        require(len(self.mean) == 3, "input.mean", self.mean, "needs three channels")
        require(
            len(self.std) == 3 and all(s > 0 for s in self.std), "input.std", self.std, "needs three positive values"
        )


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

    name: str = "dr"
    _target_: str | None = None  # the class of a loss that is not drrepro's, as in module.Class
    box_beta: float = 0.11  # smooth L1
    box_normalizer: float = 4.0  # the box loss is divided by max(1, box_normalizer * positives)

    def __post_init__(self) -> None:
        require(re.fullmatch(r"[\w.]+", self.name) is not None, "loss.name", self.name, "takes letters, digits and ._")
        for key in ("box_beta", "box_normalizer"):
            require(getattr(self, key) > 0, f"loss.{key}", getattr(self, key), "must be positive")
        for key, value in numbers(self, "loss."):
            require(math.isfinite(value), key, value, "must be finite")


@dataclass
class ScheduleConfig:
    """Optimizer and learning rate: COCO 1x [R] [M]."""

    steps: int = 90_000
    images_per_step: int = 16  # over all GPUs
    # What lr, steps and milestones of the recipe are stated for. With other images_per_step the rate is scaled linearly
    # and the iteration counts inversely [M], but for those that are given beside it; none: nothing is scaled.
    recipe_images: int | None = None
    accumulate: int = 1  # forward and backward passes a step, on so many parts of each GPU's images
    optimizer: str = "sgd"  # sgd | adamw
    lr: float = 0.01
    tuned_lr: dict[str, float] = field(default_factory=dict)  # by loss, for recipes whose lr refers to it
    momentum: float = 0.9
    weight_decay: float = 1e-4
    bias_lr_factor: float = 2.0
    bias_weight_decay: float = 0.0
    warmup_steps: int = 500
    warmup_factor: float = 1 / 3
    decay: str = "step"  # step | cosine
    milestones: list[int] = field(default_factory=lambda: [60_000, 80_000])
    decay_factor: float = 0.1
    clip_norm: float | None = None  # largest gradient norm; none: no clipping
    precision: str = "fp32"  # of the forward pass in training: fp32 | bf16 | fp16 (autocast; fp16 scales the loss)

    def __post_init__(self) -> None:
        require(self.steps >= 0, "schedule.steps", self.steps, "must not be negative")
        for key in ("images_per_step", "accumulate"):
            require(getattr(self, key) >= 1, f"schedule.{key}", getattr(self, key), "must be at least 1")
        recipe_ok = self.recipe_images is None or self.recipe_images >= 1
        require(recipe_ok, "schedule.recipe_images", self.recipe_images, "must be at least 1, or null for no scaling")
        require(self.optimizer in ("sgd", "adamw"), "schedule.optimizer", self.optimizer, "must be sgd or adamw")
        require(self.lr > 0, "schedule.lr", self.lr, "must be positive")
        for key in ("warmup_steps", "momentum", "weight_decay", "bias_lr_factor", "bias_weight_decay"):
            require(getattr(self, key) >= 0, f"schedule.{key}", getattr(self, key), "must not be negative")
        require(self.decay in ("step", "cosine"), "schedule.decay", self.decay, "must be step or cosine")
        precision_ok = self.precision in ("fp32", "bf16", "fp16")
        require(precision_ok, "schedule.precision", self.precision, "must be fp32, bf16 or fp16")
        clip_ok = self.clip_norm is None or self.clip_norm > 0
        require(clip_ok, "schedule.clip_norm", self.clip_norm, "must be positive, or null for no clipping")


@dataclass
class EvaluationConfig:
    """Test time [M]; the score thresholds of Table 1 [S]."""

    split: str = "test"  # test | tune
    metric: str | None = None  # coco | voc: also the development kit's AP50; none: that of the data's format
    score_threshold: float = 0.2  # the recipe's own; focal loss: 0.05 [R] [M]
    nms_iou: float = 0.5  # focal loss: 0.4 [R] [M]
    nms_ious: list[float] = field(default_factory=list)  # further NMS IoUs to evaluate from the same forward pass
    score_thresholds: list[float] = field(default_factory=lambda: [0.05, 0.1, 0.2, 0.3, 0.4, 0.5])
    candidates_per_level: int = 1000
    detections_per_image: int = 100
    images_per_batch: int = 8

    def __post_init__(self) -> None:
        require(self.split in ("test", "tune"), "evaluation.split", self.split, "must be test or tune")
        for key in ("score_threshold", "nms_iou"):
            require(0 <= getattr(self, key) <= 1, f"evaluation.{key}", getattr(self, key), "must be from 0 to 1")
        for iou in self.nms_ious:
            require(0 <= iou <= 1, "evaluation.nms_ious", self.nms_ious, "needs values from 0 to 1")
        thresholds_ok = bool(self.score_thresholds) and all(0 <= t < 1 for t in self.score_thresholds)
        require(thresholds_ok, "evaluation.score_thresholds", self.score_thresholds, "needs values from 0 to below 1")
        for key in ("candidates_per_level", "detections_per_image", "images_per_batch"):
            require(getattr(self, key) >= 1, f"evaluation.{key}", getattr(self, key), "must be at least 1")


@dataclass
class RuntimeConfig:
    """How a run is carried out; the only fields that are no part of its id, since they do not change its result."""

    device: str = "auto"  # auto: cuda where there is one
    workers: int = 0  # processes that read images; 0: this one, keeping the images in memory
    compile: bool = False  # torch.compile the detector for training: needs a compiler; pays after some hundred steps
    log_every: int = 20
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        for key in ("log_every", "checkpoint_every"):
            require(getattr(self, key) >= 1, f"runtime.{key}", getattr(self, key), "must be at least 1")
        require(self.workers >= 0, "runtime.workers", self.workers, "must not be negative")


@dataclass
class LauncherConfig:
    """Where a sweep's runs are carried out; no part of a run's id either."""

    name: str = "local"  # local | slurm | ray
    ranks: int = 1  # processes of one run, through torchrun where there are several
    cpus: int | None = None  # of one run; none: local takes its share of the cores, slurm and ray one
    gpus: int = 0  # of one run, to ask Slurm or Ray for; local shares those that it sees
    minutes: int = 24 * 60  # slurm: time limit of one run
    partition: str | None = None  # slurm
    cluster: str = "slurm"  # slurm | local, which tries submitit out without Slurm
    options: dict[str, Any] = field(default_factory=dict)  # slurm: further sbatch parameters, by name
    address: str | None = None  # ray: of a running cluster, or auto; none: one of this machine is started

    def __post_init__(self) -> None:
        require(self.name in ("local", "slurm", "ray"), "launcher.name", self.name, "must be local, slurm or ray")
        require(self.ranks >= 1, "launcher.ranks", self.ranks, "must be at least 1")
        require(self.cpus is None or self.cpus >= 1, "launcher.cpus", self.cpus, "must be at least 1")
        require(self.gpus >= 0, "launcher.gpus", self.gpus, "must not be negative")
        require(self.minutes >= 1, "launcher.minutes", self.minutes, "must be at least 1")
        require(self.cluster in ("slurm", "local"), "launcher.cluster", self.cluster, "must be slurm or local")


@dataclass
class TrackerConfig:
    """Which experiment tracker hears of a run; no part of its id."""

    name: str = "none"  # none | tensorboard | mlflow | wandb
    _target_: str | None = None  # its class, as in module.Class
    options: dict[str, Any] = field(default_factory=dict)  # what the class takes


@dataclass
class Config:
    """One run, wholly resolved."""

    seed: int = 0
    loss_only: bool = False  # another loss leaves focal loss's prior, matcher, score threshold and NMS IoU as they are
    weights: str = "none"  # none | imagenet (torchvision's) | run:ID | PATH, see models/checkpoints.py
    weights_sha256: str | None = None  # of the file at PATH, filled in when composed: other weights, other run
    data: DataConfig = field(default_factory=DataConfig)
    input: InputConfig = field(default_factory=InputConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    matcher: MatcherConfig = field(default_factory=MatcherConfig)
    loss: Any = field(default_factory=LossConfig)  # of the class that the loss takes its parameters in
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", self.seed, "must not be negative")
        known = re.fullmatch(r"run:[\w.-]+|(?!run:).+", self.weights) is not None
        require(known, "weights", self.weights, "must be none, imagenet, the path of a file, or run:ID")
        limit = self.evaluation.detections_per_image
        counted = self.data.submission is None or limit <= 100
        require(counted, "evaluation.detections_per_image", limit, "the evaluation server takes at most 100")
        for key, value in numbers(self):
            require(math.isfinite(value), key, value, "must be finite")


def numbers(section: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the dotted name and the value of every number of a configuration."""
    for item in fields(section):
        value, key = getattr(section, item.name), f"{prefix}{item.name}"
        if is_dataclass(value):
            yield from numbers(value, f"{key}.")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float):
                yield key, number
