"""The keys of schedule., evaluation., runtime., launcher. and tracker."""

from dataclasses import dataclass, field
from typing import Any

from drrepro.schema.check import require


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

    split: str = "test"  # test | tune | train
    metric: str | None = None  # coco | voc: also the development kit's AP50; none: that of the data's format
    score_threshold: float = 0.2  # the recipe's own; focal loss: 0.05 [R] [M]
    nms_iou: float = 0.5  # focal loss: 0.4 [R] [M]
    # fg_iou and bg_iou of the matchers that label the scores for Figure 1, whatever a run trained with: those of focal
    # and of DR loss [M] [R]
    density_matchers: list[list[float]] = field(default_factory=lambda: [[0.5, 0.4], [0.5, 0.5]])
    nms_ious: list[float] = field(default_factory=list)  # further NMS IoUs to evaluate from the same forward pass
    score_thresholds: list[float] = field(default_factory=lambda: [0.05, 0.1, 0.2, 0.3, 0.4, 0.5])
    candidates_per_level: int = 1000
    detections_per_image: int = 100
    images_per_batch: int = 8

    def __post_init__(self) -> None:
        require(self.split in ("test", "tune", "train"), "evaluation.split", self.split, "must be test, tune or train")
        for key in ("score_threshold", "nms_iou"):
            require(0 <= getattr(self, key) <= 1, f"evaluation.{key}", getattr(self, key), "must be from 0 to 1")
        for iou in self.nms_ious:
            require(0 <= iou <= 1, "evaluation.nms_ious", self.nms_ious, "needs values from 0 to 1")
        for ious in self.density_matchers:
            pair_ok = len(ious) == 2 and 0 <= ious[1] <= ious[0] <= 1
            require(pair_ok, "evaluation.density_matchers", self.density_matchers, "needs pairs of fg_iou and bg_iou")
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
