"""Open a split of the configured data set with the reader of its format."""

from dataclasses import replace
from pathlib import Path

from drrepro.data.coco import read_coco
from drrepro.data.dataset import Dataset
from drrepro.data.embedded import require_embedded
from drrepro.data.voc import find_classes, read_voc
from drrepro.errors import UsageError
from drrepro.schema import DataConfig

SPLITS = ("train", "tune", "test")


def open_split(config: DataConfig, split: str, data_folder: Path) -> Dataset:
    """Read ``split``: train, tune or test. Raises UsageError, naming the key or file, when it cannot be read."""
    root = Path(config.root) if config.root is not None else data_folder / (config.folder or config.name)
    if config.embedded:
        digest = require_embedded(config.name, root)
        if config.sha256 not in (None, digest):
            raise UsageError(f"{root}: other images than this run's (sha256 {digest[:8]}, not {config.sha256[:8]})")
        return replace(_read(config, split, root), sha256=digest)
    return _read(config, split, root)


def _read(config: DataConfig, split: str, root: Path) -> Dataset:
    if config.format == "coco":
        json_path, images = getattr(config, f"{split}_json"), getattr(config, f"{split}_images")
        if json_path is None or images is None:
            raise UsageError(f"data.{split}_json and data.{split}_images: both are needed to read the {split} split")
        return read_coco(root / json_path, root / images, annotated=split != "test" or config.submission is None)
    lists = {s: name for s in SPLITS if (name := getattr(config, f"{s}_split")) is not None}
    if split not in lists:
        raise UsageError(f"data.{split}_split: needed to read the {split} split, a name in ImageSets/Main")
    return read_voc(root, lists[split], config.classes or find_classes(root, list(lists.values())))
