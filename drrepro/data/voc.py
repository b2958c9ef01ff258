"""Read a folder in the layout of PASCAL VOC: JPEGImages, Annotations, ImageSets/Main."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from drrepro.data.dataset import Dataset, Sample
from drrepro.errors import UsageError
from drrepro.shape import LARGEST

Objects = list[tuple[str, list[float], bool]]  # name, box, difficult


def read_voc(root: Path, split: str, classes: list[str]) -> Dataset:
    """Read the objects of the images listed in ImageSets/Main/<split>.txt; images are not opened.

    An image's id is its place in the list, from 1.

    VOC's corners are 1-based inclusive pixels, so x1 = xmin - 1 and x2 = xmax. Degenerate boxes
    (xmax <= xmin or ymax <= ymin) are dropped and listed. Raises UsageError, naming the file, for a missing
    or malformed list or XML, and a class that is not in ``classes``.
    """
    samples: list[Sample] = []
    dropped: list[str] = []
    for number, name in enumerate(_names(root, split), start=1):
        xml = root / "Annotations" / f"{name}.xml"
        size, objects = _parse(xml)
        kept: Objects = []
        for label, box, difficult in objects:
            if label not in classes:
                raise UsageError(f"{xml}: class {label!r} is not among data.classes ({', '.join(classes)})")
            if box[2] - box[0] <= 1 or box[3] - box[1] <= 1:
                dropped.append(f"{xml}: {label} at {box[0] + 1:g} {box[1] + 1:g} {box[2]:g} {box[3]:g} is degenerate")
            else:
                kept.append((label, box, difficult))
        boxes = np.array([box for _, box, _ in kept], dtype=np.float64).reshape(-1, 4)
        samples.append(
            Sample(
                id=number,
                path=_image_path(root, name),
                width=size[0],
                height=size[1],
                boxes=boxes,
                labels=np.array([classes.index(label) + 1 for label, _, _ in kept], dtype=np.int64),
                areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
                ignore=np.array([difficult for _, _, difficult in kept], dtype=np.bool_),
            )
        )
    return Dataset(classes, list(range(1, len(classes) + 1)), samples, dropped)


def find_classes(root: Path, splits: list[str]) -> list[str]:
    """Return the sorted names of all objects in the given splits."""
    names = {n for split in splits for n in _names(root, split)}
    classes = {label for n in names for label, _, _ in _parse(root / "Annotations" / f"{n}.xml")[1]}
    if not classes:
        raise UsageError(f"{root}: no object in any annotation of {', '.join(splits)}")
    return sorted(classes)


def _list_path(root: Path, split: str) -> Path:
    return root / "ImageSets" / "Main" / f"{split}.txt"


def _names(root: Path, split: str) -> list[str]:
    path = _list_path(root, split)
    try:
        return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; check data.root and the data.*_split keys") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a list of names ({error})") from None


def _image_path(root: Path, name: str) -> Path:
    paths = [root / "JPEGImages" / f"{name}{suffix}" for suffix in (".jpg", ".jpeg", ".JPG", ".png")]
    return next((path for path in paths if path.is_file()), paths[0])


def _parse(xml: Path) -> tuple[tuple[int, int], Objects]:
    try:
        tree = ElementTree.parse(xml).getroot()
        size = (int(tree.findtext("size/width", "")), int(tree.findtext("size/height", "")))
        if not 1 <= min(size) <= max(size) <= LARGEST:
            raise ValueError(f"an image of {size[0]} x {size[1]} px")
        objects: Objects = []
        for item in tree.iter("object"):
            corners = [float(item.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")]
            name = item.findtext("name", "").strip()
            if not name or not all(-LARGEST <= corner <= LARGEST for corner in corners):
                raise ValueError(f"an object needs a name and a finite box, got {name!r} at {corners}")
            box = [corners[0] - 1, corners[1] - 1, corners[2], corners[3]]
            objects.append((name, box, item.findtext("difficult", "0").strip() == "1"))
    except OSError as error:
        raise UsageError(f"{xml}: {error.strerror}") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise UsageError(f"{xml}: malformed ({error})") from None
    return size, objects
