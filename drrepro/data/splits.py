"""Open a split of the configured data set with the reader of its format."""

from dataclasses import replace
from pathlib import Path

from drrepro.data.coco import read_coco
from drrepro.data.dataset import Dataset, check_files
from drrepro.data.download import FETCHED, require_fetched
from drrepro.data.embedded import require_embedded
from drrepro.data.voc import find_classes, read_voc
from drrepro.errors import UsageError
from drrepro.schema import DataConfig

SPLITS = ("train", "tune", "test")


def open_split(config: DataConfig, split: str, data_folder: Path) -> Dataset:
    """Read ``split``, train, tune or test, whose images are all there.

    Raises UsageError, naming the key or file, when it cannot be read or an image is missing.
    """
    root = split_root(config, data_folder)
    if config.embedded:
        digest = require_embedded(config.name, root)
        if config.sha256 not in (None, digest):
            raise UsageError(f"{root}: other images than this run's (sha256 {digest[:8]}, not {config.sha256[:8]})")
    dataset = read_split(config, split, root)
    check_files(dataset.samples, split)
    return replace(dataset, sha256=digest) if config.embedded else dataset


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
