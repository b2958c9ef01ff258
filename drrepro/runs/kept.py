"""What a run keeps beside its record, to be resampled, drawn or scored again: matches, score densities, detections."""

import dataclasses
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from drrepro.errors import UsageError
from drrepro.evaluation.coco import Matches, Results
from drrepro.evaluation.densities import Densities
from drrepro.files import atomic_write
from drrepro.runs.folder import RunFolder
from drrepro.shape import misfit

DETECTED = [{"image_id": int, "category_id": int, "bbox": [float] * 4, "score": float}]


def write_matches(directory: Path, matches: Matches) -> None:
    """Keep what resampling the test images needs."""
    arrays = {f.name: getattr(matches, f.name) for f in dataclasses.fields(matches)}
    atomic_write(RunFolder(directory).matches, lambda file: np.savez_compressed(file, **arrays))


def read_matches(path: Path) -> Matches:
    """Return the matches kept in a file. Raises UsageError for a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            matches = Matches(**{f.name: arrays[f.name] for f in dataclasses.fields(Matches)})
        matches.check()
        return matches
    except Exception as error:  # numpy and zipfile raise whatever the damaged bytes make them raise
        raise UsageError(f"{path}: not readable ({error}); remove it to do without intervals of this run") from None


def write_densities(directory: Path, densities: Densities) -> None:
    """Keep the score densities of each image."""
    arrays: dict[str, Any] = {
        "matchers": np.array(list(densities.counts)),
        "counts": np.stack(list(densities.counts.values())),
    }
    atomic_write(RunFolder(directory).densities, lambda file: np.savez_compressed(file, **arrays))


def read_densities(path: Path) -> Densities:
    """Return the densities kept in a file. Raises UsageError for a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            matchers = [(float(fg_iou), float(bg_iou)) for fg_iou, bg_iou in arrays["matchers"]]
            densities = Densities(dict(zip(matchers, arrays["counts"], strict=True)))
        densities.check()
        return densities
    except Exception as error:  # numpy and zipfile raise whatever the damaged bytes make them raise
        raise UsageError(f"{path}: not readable ({error}); remove it to do without intervals of densities") from None


def write_detections(directory: Path, results: Results) -> None:
    """Keep what was detected above the lowest score threshold."""
    packed = gzip.compress(json.dumps(results).encode(), compresslevel=6, mtime=0)
    atomic_write(RunFolder(directory).detections, lambda file: file.write(packed))


def read_detections(path: Path) -> Results:
    """Return the detections kept in a file. Raises UsageError where there are none or they are damaged."""
    try:
        found: Results = json.loads(gzip.decompress(path.read_bytes()))
        if wrong := misfit(found, DETECTED):
            raise ValueError(wrong)
    except (OSError, ValueError, EOFError, RecursionError, zlib.error) as error:
        raise UsageError(f"{path}: not readable ({error})") from None
    return found
