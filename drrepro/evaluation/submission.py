"""The COCO evaluation server's zip: detections of a test split whose objects only the server knows."""

import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from drrepro.errors import RunError
from drrepro.evaluation.coco import Results
from drrepro.files import atomic_write

NAME = re.compile(r"detections_[a-z0-9-]+_[A-Za-z0-9.-]+_results")  # detections_<split>_<algorithm>_results
LIMIT = 100  # detections of an image that the server counts


def write_submission(
    folder: Path, split: str, algorithm: str, results: Results, images: Collection[int], categories: Collection[int]
) -> Path:
    """Write detections_<split>_<algorithm>_results.zip with the json of that name in it; return its path.

    To keep it small, boxes are rounded to 0.01 px and scores to 0.00001. A side that rounds to nothing is 0.01 px, so
    that every detection still counts.
    Raises RunError when the zip cannot be written or is not valid.
    """
    name = f"detections_{split}_{algorithm}_results"
    content = json.dumps([_rounded(row) for row in results], separators=(",", ":"))
    path = folder / f"{name}.zip"

    def write(file: Any) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{name}.json", content)

    atomic_write(path, write)
    validate_submission(path, images, categories)
    return path


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    x, y, width, height = (round(value, 2) for value in row["bbox"])
    return {**row, "bbox": [x, y, max(width, 0.01), max(height, 0.01)], "score": round(row["score"], 5)}


def validate_submission(path: Path, images: Collection[int], categories: Collection[int]) -> int:
    """Return the number of detections in a zip for the evaluation server, or raise RunError naming what it refuses.

    ``images`` and ``categories`` are the ids of the split.
    """
    if NAME.fullmatch(path.stem) is None or path.suffix != ".zip":
        raise RunError(f"{path}: must be named detections_<split>_<algorithm>_results.zip")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.namelist() != [f"{path.stem}.json"]:
                raise RunError(f"{path}: must hold {path.stem}.json and nothing else, holds {archive.namelist()}")
            rows = json.loads(archive.read(f"{path.stem}.json"))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise RunError(f"{path}: not a zip with a json in it ({error})") from None
    if not isinstance(rows, list):
        raise RunError(f"{path}: must hold a list of detections")
    known_images, known_categories = frozenset(images), frozenset(categories)
    for number, row in enumerate(rows):
        wrong = _wrong(row, known_images, known_categories)
        if wrong is not None:
            raise RunError(f"{path}: detection {number}: {wrong}: {row}")
    fullest = Counter(row["image_id"] for row in rows).most_common(1)
    if fullest and fullest[0][1] > LIMIT:
        raise RunError(f"{path}: image {fullest[0][0]} has {fullest[0][1]} detections; at most {LIMIT} count")
    return len(rows)


def _wrong(row: Any, images: frozenset[int], categories: frozenset[int]) -> str | None:
    """Say what the server would refuse of a detection."""
    if not isinstance(row, dict) or set(row) != {"image_id", "category_id", "bbox", "score"}:
        return "needs image_id, category_id, bbox and score"
    if type(row["image_id"]) is not int or row["image_id"] not in images:
        return "image_id is not in the split"
    if type(row["category_id"]) is not int or row["category_id"] not in categories:
        return "category_id is not in the split"
    if not isinstance(row["bbox"], list) or len(row["bbox"]) != 4 or not all(map(_is_finite, row["bbox"])):
        return "bbox must be four finite numbers"
    if min(row["bbox"][2:]) <= 0:
        return "bbox must have a positive width and height"
    if not _is_finite(row["score"]) or not 0 <= row["score"] <= 1:
        return "score must be a number from 0 to 1"
    return None


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
