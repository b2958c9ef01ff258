"""Read a COCO json with its image folder."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from drrepro.data.dataset import Dataset, Sample, check_files
from drrepro.errors import UsageError


def read_coco(json_path: Path, images: Path) -> Dataset:
    """Read one split. Degenerate boxes are dropped and listed; category ids may have gaps.

    Raises UsageError, naming the file, for a missing or malformed json, an annotation of an unknown image or
    category, and missing images.
    """
    content = _load(json_path)
    categories = sorted(content["categories"], key=lambda c: c["id"])
    label_of = {c["id"]: i + 1 for i, c in enumerate(categories)}
    known = {image["id"] for image in content["images"]}
    by_image: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    dropped: list[str] = []
    for annotation in content["annotations"]:
        where = f"{json_path}: annotation {annotation.get('id')}"
        try:
            _, _, width, height = map(float, annotation["bbox"])
            if annotation["category_id"] not in label_of:
                raise UsageError(
                    f"{where} has category_id {annotation['category_id']}, which is not among the categories"
                )
            if annotation["image_id"] not in known:
                raise UsageError(f"{where} has image_id {annotation['image_id']}, which is not among the images")
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{where} needs category_id, image_id and a bbox of four numbers ({error!r})") from None
        if not (width > 0 and height > 0):
            dropped.append(f"{where} of image {annotation['image_id']} is {width:g} x {height:g} px")
        else:
            by_image[annotation["image_id"]].append(annotation)
    samples = [_sample(image, by_image[image["id"]], images, label_of) for image in content["images"]]
    check_files(samples, json_path)
    return Dataset([c["name"] for c in categories], [c["id"] for c in categories], samples, dropped)


def _load(json_path: Path) -> dict[str, Any]:
    try:
        content = json.loads(json_path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{json_path}: not found; set data.root and the data.*_json keys") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{json_path}: not readable as json ({error})") from None
    missing = [k for k in ("images", "annotations", "categories") if not isinstance(content, dict) or k not in content]
    if missing:
        raise UsageError(f"{json_path}: not in COCO format, it has no {' and no '.join(missing)}")
    for image in content["images"]:
        if not {"id", "file_name", "width", "height"} <= image.keys():
            raise UsageError(f"{json_path}: image {image} needs id, file_name, width and height")
    return content  # type: ignore[no-any-return]


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
