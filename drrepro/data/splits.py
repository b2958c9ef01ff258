"""Open a split of the configured data set with the reader of its format."""

from dataclasses import replace
from pathlib import Path

from drrepro.data.coco import read_coco
from drrepro.data.dataset import Dataset
from drrepro.data.download import require_fetched
from drrepro.data.embedded import require_embedded
from drrepro.data.images import keep_good
from drrepro.data.published import FETCHED
from drrepro.data.voc import find_classes, read_voc
from drrepro.errors import UsageError
from drrepro.progress import Report, silent
from drrepro.schema import DataConfig

SPLITS = ("train", "tune", "test")


def open_split(config: DataConfig, split: str, data_folder: Path) -> Dataset:
    """Read one split; see `open_splits`."""
    return open_splits(config, [split], data_folder)[split]


def open_splits(
    config: DataConfig, splits: list[str], data_folder: Path, report: Report = silent
) -> dict[str, Dataset]:
    """Read ``splits``, of train, tune and test, whose images are all there and as annotated, see `keep_good`.

    Raises UsageError, naming the key or file, when they cannot be read or an image is bad.
    """
    root = split_root(config, data_folder)
    digest = None
    if config.embedded:
        digest = require_embedded(config.name, root)
        if config.sha256 not in (None, digest):
            raise UsageError(f"{root}: other images than this run's (sha256 {digest[:8]}, not {config.sha256[:8]})")
    datasets = {split: read_split(config, split, root) for split in splits}
    good = keep_good(config, datasets, root, data_folder, report)
    return {split: replace(dataset, sha256=digest) for split, dataset in good.items()}


def split_root(config: DataConfig, data_folder: Path) -> Path:
    """Return the folder of the data set; raise UsageError when it can be fetched, but is not there, or not wholly."""
    if config.root is not None:
        return Path(config.root)
    if config.name in FETCHED:
        return require_fetched(config.name, data_folder)
    return data_folder / config.name


def configured_splits(config: DataConfig) -> list[str]:
    """Return those of SPLITS that the data set has."""
    part = "json" if config.format == "coco" else "split"
    return [split for split in SPLITS if getattr(config, f"{split}_{part}") is not None]


def read_split(config: DataConfig, split: str, root: Path) -> Dataset:
    """Read the annotations of ``split`` under ``root``; images may be missing, and those of an embedded set touched."""
    if config.format == "coco":
        json_path, images = getattr(config, f"{split}_json"), getattr(config, f"{split}_images")
        if json_path is None or images is None:
            raise UsageError(f"data.{split}_json and data.{split}_images: both are needed to read the {split} split")
        annotated = split != "test" or config.submission is None
        return read_coco(root / Path(json_path).expanduser(), root / Path(images).expanduser(), annotated)
    lists = {s: getattr(config, f"{s}_split") for s in configured_splits(config)}
    if split not in lists:
        raise UsageError(f"data.{split}_split: needed to read the {split} split, a name in ImageSets/Main")
    return read_voc(root, lists[split], config.classes or find_classes(root, list(lists.values())))
