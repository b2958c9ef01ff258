"""Read a COCO json with its image folder."""

from collections import defaultdict
from collections.abc import Container
from pathlib import Path
from reprlib import repr as short  # of what a message shows
from typing import Any

import numpy as np

from drrepro.data.dataset import Dataset, Sample
from drrepro.errors import UsageError
from drrepro.files import read_json
from drrepro.shape import LARGEST

NEEDED = {"images": {"id", "file_name", "width", "height"}, "categories": {"id", "name"}, "annotations": set[str]()}


def read_coco(json_path: Path, images: Path, annotated: bool = True) -> Dataset:
    """Read one split; images are not opened. Degenerate boxes are dropped and listed; ids may have gaps.

    Without ``annotated`` no objects are read: the json of a test split whose objects are secret has none.

    Raises UsageError, naming the file, for a missing or malformed json, and an annotation of an unknown image or
    category.
    """
    content = _load(json_path, annotated)
    categories = sorted(content["categories"], key=lambda c: c["id"])
    label_of = {c["id"]: i + 1 for i, c in enumerate(categories)}
    known = {image["id"] for image in content["images"]}
    by_image: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    dropped: list[str] = []
    for number, annotation in enumerate(content["annotations"]):
        where = f"{json_path}: annotation {number}"
        width, height = _check_annotation(annotation, where, label_of.keys(), known)
        if width > 0 and height > 0:
            by_image[annotation["image_id"]].append(annotation)
        else:
            dropped.append(f"{where} (id {annotation.get('id')}) is {width:g} x {height:g} px")
    samples = [_sample(image, by_image[image["id"]], images, label_of) for image in content["images"]]
    names, ids = [c["name"] for c in categories], [c["id"] for c in categories]
    return Dataset(names, ids, samples, dropped, annotated=annotated)


def _load(json_path: Path, annotated: bool) -> dict[str, Any]:
    try:
        content = read_json(json_path)
    except FileNotFoundError:
        raise UsageError(f"{json_path}: not found; set data.root and the data.*_json keys") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{json_path}: not readable as json ({error})") from None
    if isinstance(content, dict) and not annotated:
        content["annotations"] = []
    for key, entries in NEEDED.items():
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not (rows or key == "annotations"):
            raise UsageError(f"{json_path}: not in COCO format, it needs a list of {key}")
        for row in rows:
            if not isinstance(row, dict) or any(row.get(entry) is None for entry in entries):
                raise UsageError(
                    f"{json_path}: an entry of {key} needs {', '.join(sorted(entries)) or 'keys'}: {short(row)}"
                )
        ids = [row["id"] for row in rows] if "id" in entries else []
        for number in ids:
            if type(number) is not int or abs(number) >= 2**53:  # beyond, json readers round
                raise UsageError(f"{json_path}: an id in {key} is not a whole number below 2^53: {short(number)}")
        if len(set(ids)) < len(ids):
            raise UsageError(f"{json_path}: an id stands twice in {key}")
    for key, entry in (("images", "file_name"), ("categories", "name")):
        for row in content[key]:
            if not _is_text(row[entry]):
                raise UsageError(f"{json_path}: {entry} of an entry of {key} must be text: {short(row)}")
    for row in content["images"]:
        if not all(_is_number(row[side]) and row[side] >= 1 for side in ("width", "height")):
            raise UsageError(f"{json_path}: width and height of an image must be at least 1 px: {short(row)}")
    return content  # type: ignore[no-any-return]


def _is_text(value: Any) -> bool:
    """Whether a value can be a name: of a file, no null byte, and printed, no half of a character."""
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST


def _check_annotation(
    annotation: dict[str, Any], where: str, categories: Container[int], images: Container[int]
) -> list[float]:
    """Return the width and height of an annotation's box, or raise UsageError."""
    box, area = annotation.get("bbox"), annotation.get("area", 0.0)
    for key, known, of in (("category_id", categories, "categories"), ("image_id", images, "images")):
        number = annotation.get(key)
        if not _is_number(number) or number not in known:
            raise UsageError(f"{where} has {key} {short(number)}, which is not among the {of}")
    values = [*box, area] if isinstance(box, list) and len(box) == 4 else []
    if not values or not all(map(_is_number, values)):
        shown = f"{short(box)}, {short(area)}"
        raise UsageError(f"{where} needs a bbox of four numbers and, if any, a number as area: {shown}")
    return values[2:4]


def _sample(image: dict[str, Any], annotations: list[dict[str, Any]], folder: Path, label_of: dict[int, int]) -> Sample:
    xywh = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    areas = [a.get("area", a["bbox"][2] * a["bbox"][3]) for a in annotations]
    return Sample(
        id=image["id"],
        path=folder / image["file_name"],
        width=image["width"],
        height=image["height"],
        boxes=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        labels=np.array([label_of[a["category_id"]] for a in annotations], dtype=np.int64),
        areas=np.array(areas, dtype=np.float64),
        ignore=np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=np.bool_),
    )
