"""Detect on images without annotations, and draw what is found."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from drrepro.data.dataset import Sample
from drrepro.data.loader import Item, collate
from drrepro.data.pixels import open_upright
from drrepro.data.transforms import resize
from drrepro.detection.pipeline import keep, propose
from drrepro.errors import RunError, UsageError
from drrepro.files import atomic_write
from drrepro.models.postprocess import Detections
from drrepro.models.retinanet import RetinaNet
from drrepro.report.drawing import draw_detections
from drrepro.schema import Config

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # of the images of a folder


@dataclass
class Predictions:
    """``images``: image, drawing, width, height and detections (class, score, box: x1 y1 x2 y2 px) of each, as a viewer
    shows it, turned by its EXIF tag.
    ``unreadable``: image and error of those that could not be decoded.
    """

    images: list[dict[str, Any]] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)


def predict(
    model: RetinaNet,
    config: Config,
    classes: list[str],
    images: list[Path],
    output: Path,
    progress: Callable[[int, int], None],
) -> Predictions:
    """Detect on every image and draw what is found into ``output``; go on where one cannot be read.

    Raises UsageError before any work when a drawing would take the place of an image.
    """
    found = Predictions()
    for done, (image, drawing) in enumerate(zip(images, _drawings(images, output), strict=True)):
        progress(done, len(images))
        try:
            pixels = open_upright(image)
        except RunError as error:
            found.unreadable.append({"image": str(image), "error": str(error)})
            continue
        kept = detect_one(model, config, pixels)
        boxes, labels, scores = kept.boxes.tolist(), kept.labels.tolist(), kept.scores.tolist()
        drawn = draw_detections(pixels, boxes, labels, scores, classes)
        atomic_write(drawing, lambda file, drawn=drawn: drawn.save(file, "JPEG", quality=92, subsampling=0))  # type: ignore[misc]
        rows = [
            {"class": classes[label - 1], "score": score, "box": box}
            for box, label, score in zip(boxes, labels, scores, strict=True)
        ]
        size = {"width": pixels.width, "height": pixels.height}
        found.images.append({"image": str(image), "drawing": str(drawing), **size, "detections": rows})
    progress(len(images), len(images))
    return found


@torch.inference_mode()
def detect_one(model: RetinaNet, config: Config, image: Image.Image) -> Detections:
    """Return what is found on an RGB image above the run's score threshold, on the CPU, boxes in its pixels."""
    model.eval()
    none, boxes = np.zeros(0), np.zeros((0, 4))
    sample = Sample(0, Path(), image.width, image.height, boxes, none.astype(np.int64), none, none.astype(np.bool_))
    item = Item(sample, resize(image, config.input), flip=False)
    batch = collate([item], config.input, next(model.parameters()).device)
    (candidates,), _ = propose(model, batch, config, config.evaluation.score_threshold).wait()
    return keep(candidates, sample, batch.sizes[0], config.evaluation.nms_iou, config)


def find_images(paths: list[Path]) -> list[Path]:
    """Return the files among ``paths`` and the images in the folders among them, each once.

    Raises UsageError for a path that is not there and a folder without an image.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        own = [path]
        if path.is_dir():
            own = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        if not own:
            raise UsageError(f"{path}: no image in this folder ({' '.join(SUFFIXES)})")
        found += own
    return list(dict.fromkeys(found))


def _drawings(images: list[Path], output: Path) -> list[Path]:
    """Return a file of its own for each image: a name that comes again gets a number."""
    drawings: dict[Path, None] = {}
    for image in images:
        drawing, number = output / f"{image.stem}.jpg", 2
        while drawing in drawings:
            drawing, number = output / f"{image.stem}-{number}.jpg", number + 1
        drawings[drawing] = None
    taken = {image.resolve() for image in images} & {drawing.resolve() for drawing in drawings}
    if taken:
        raise UsageError(f"{min(taken)}: a drawing would take the place of this image; choose another --output")
    return list(drawings)
