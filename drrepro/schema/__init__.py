"""The configuration: every constant of the paper's protocol is a field, with the paper's value as its default.

Sources: [S] the paper's supplementary, [R] the authors' release, [M] maskrcnn-benchmark, on which the paper
trains, [I] inferred because all of these are silent. Files in conf/ override fields; nothing else does.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from drrepro.schema.check import numbers, require
from drrepro.schema.data import DataConfig, InputConfig
from drrepro.schema.model import LossConfig, MatcherConfig, ModelConfig
from drrepro.schema.run import EvaluationConfig, LauncherConfig, RuntimeConfig, ScheduleConfig, TrackerConfig

__all__ = [
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "InputConfig",
    "LauncherConfig",
    "LossConfig",
    "MatcherConfig",
    "ModelConfig",
    "RuntimeConfig",
    "ScheduleConfig",
    "TrackerConfig",
    "numbers",
    "require",
]


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
