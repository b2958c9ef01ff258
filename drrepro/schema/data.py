"""The keys of data. and input."""

import re
from dataclasses import dataclass, field

from drrepro.schema.check import require


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
    # Sides, px, to one of which each side of a batch is padded where one is large enough; none: to size_divisor alone.
    # Few sizes let runtime.compile compile each of them once.
    pad_to: list[int] = field(default_factory=list)
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
        divisible = all(side > 0 and side % self.size_divisor == 0 for side in self.pad_to)
        require(divisible, "input.pad_to", self.pad_to, f"needs multiples of input.size_divisor={self.size_divisor}")
        require(0 <= self.flip <= 1, "input.flip", self.flip, "is a probability")
        require(len(self.mean) == 3, "input.mean", self.mean, "needs three channels")
        require(
            len(self.std) == 3 and all(s > 0 for s in self.std), "input.std", self.std, "needs three positive values"
        )
