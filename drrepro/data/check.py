"""Look at every annotation and image of a data set, and say what is wrong with it."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from drrepro.data.dataset import Dataset, Sample
from drrepro.data.embedded import require_embedded
from drrepro.data.images import find_problem
from drrepro.data.splits import configured_splits, read_split, split_root
from drrepro.data.transforms import load_image
from drrepro.errors import RunError, UsageError
from drrepro.progress import Report
from drrepro.schema import DataConfig, InputConfig

PUBLISHED = {  # images
    "coco2017": {"train": 118_287, "test": 5_000},
    "coco2017_testdev": {"test": 20_288},
    "voc2007": {"train": 5_011, "test": 4_952},
    "bccd": {"train": 292, "test": 72},
}
DEGENERATE = {("coco2017", "train"): 2, ("bccd", "train"): 2}  # boxes published so; COCO: cocoapi issue 355
OUTSIDE = 1.0  # px: annotations are rounded
FEW = 256  # images that one process decodes sooner than others start

Check = dict[str, Any]


def check_data(config: DataConfig, data_folder: Path, quick: bool, report: Report) -> dict[str, Check]:
    """Check each split that is configured. ``quick`` reads the sizes of images, but does not decode them.

    A split's entry has ``images``, ``expected`` (the published count or None), ``objects``, ``empty`` (images without
    any), ``ignored`` (crowds, difficult objects), ``classes`` with their objects, and ``problems``: lists of lines by
    kind, missing, unreadable, size, outside, degenerate and other.
    Raises UsageError when the annotations cannot be read.
    """
    root = split_root(config, data_folder)
    splits = configured_splits(config)
    if not splits:
        raise UsageError(f"data={config.name}: names no split; set its keys, such as data.test_json, see conf/data")
    datasets = {split: read_split(config, split, root) for split in splits}  # all of them before any image
    checks = {}
    for split, dataset in datasets.items():
        problems: dict[str, list[str]] = {
            **_image_problems(dataset.samples, quick, partial(report, f"check {split}")),
            "outside": list(_boxes_outside(dataset)),
            "degenerate": dataset.dropped if len(dataset.dropped) != DEGENERATE.get((config.name, split)) else [],
            "other": _other(config, split, dataset, root),
        }
        checks[split] = {**_summary(dataset), "expected": _expected(config, split), "problems": problems}
    return checks


def _summary(dataset: Dataset) -> Check:
    counts = Counter(dataset.classes[label - 1] for sample in dataset.samples for label in sample.labels)
    return {
        "images": len(dataset.samples),
        "objects": sum(len(sample.boxes) for sample in dataset.samples),
        "empty": sum(not len(sample.boxes) for sample in dataset.samples),
        "ignored": sum(int(sample.ignore.sum()) for sample in dataset.samples),
        "classes": {name: counts[name] for name in dataset.classes},
    }


def _expected(config: DataConfig, split: str) -> int | None:
    return PUBLISHED.get(config.name, {}).get(split)


def _other(config: DataConfig, split: str, dataset: Dataset, root: Path) -> list[str]:
    """Return what is wrong with the split as a whole."""
    lines = []
    expected = _expected(config, split)
    if expected not in (None, len(dataset.samples)):
        lines.append(f"{split}: {len(dataset.samples):,} images, {expected:,} are published")
    if not dataset.samples:
        lines.append(f"{split}: lists no image")
    try:
        if config.embedded:
            require_embedded(config.name, root)
    except UsageError as error:
        lines.append(str(error))
    return lines


def _boxes_outside(dataset: Dataset) -> Iterator[str]:
    for sample in dataset.samples:
        for label, box in zip(sample.labels, sample.boxes.tolist(), strict=True):
            x1, y1, x2, y2 = box
            if max(-x1, -y1, x2 - sample.width, y2 - sample.height) > OUTSIDE:
                corners = " ".join(f"{value:g}" for value in box)
                size = f"{sample.width} x {sample.height}"
                yield f"{sample.path}: {dataset.classes[label - 1]} at {corners} leaves the image of {size} px"


def _image_problems(samples: list[Sample], quick: bool, report: partial[None]) -> dict[str, list[str]]:
    """Return a line by kind for each image that is missing, cannot be read or is not of the annotated size."""
    look = partial(_look, quick=quick)
    problems: dict[str, list[str]] = {"missing": [], "unreadable": [], "size": []}
    with ProcessPoolExecutor() if len(samples) > FEW else nullcontext() as pool:
        found = pool.map(look, samples, chunksize=32) if pool else map(look, samples)
        for done, (kind, line) in enumerate(found, start=1):
            report(done, len(samples), {})
            if kind:
                problems[kind].append(line)
    return problems


def _look(sample: Sample, quick: bool) -> tuple[str, str]:
    """Return what is wrong with an image, as kind and line, both empty if nothing is."""
    kind, line = find_problem(sample)
    if not kind and not quick:
        try:
            load_image(sample, InputConfig(scale=16))  # as training reads it
        except RunError as error:
            return "unreadable", str(error)
    return kind, line
