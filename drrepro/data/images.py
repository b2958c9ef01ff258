"""Whether images are what their annotations say, from their headers; what was found right is not opened again."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from PIL import ExifTags, Image

from drrepro.data.dataset import Dataset, Sample
from drrepro.data.pixels import UNREADABLE
from drrepro.errors import RunError, UsageError
from drrepro.files import read_json, write_text
from drrepro.progress import Report
from drrepro.schema import DataConfig

THREADS = 16  # they wait for the disk, or for another machine's
TAIL = 1024  # bytes in which a whole file has its end marker
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
SPELLED_OUT = 10  # problems in a message

Seen = dict[str, list[int]]  # by path: size in bytes, mtime in ns, and the width and height that were right


def find_problem(sample: Sample) -> tuple[str, str]:
    """Return what is wrong with an image as kind (missing, unreadable or size) and line, both empty if nothing is.

    Only its header is read, and its end: where the marker that ends a whole file is not there, it is decoded.
    """
    annotated = (sample.width, sample.height)
    try:
        with Image.open(sample.path) as image:
            size, ended = image.size, ENDS.get(image.format or "", b"") in _tail(sample.path)
            turned = size != annotated == size[::-1] and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            if not ended:
                image.load()
    except FileNotFoundError:
        return "missing", f"{sample.path}: not found"
    except UNREADABLE as error:
        return "unreadable", f"{sample.path}: cannot be read ({error})"
    if size != annotated and not turned:
        stated = f"{annotated[0]} x {annotated[1]}"
        return "size", f"{sample.path}: is {size[0]} x {size[1]} px, its annotation says {stated}"
    return "", ""


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return file.read()


def keep_good(
    config: DataConfig, datasets: dict[str, Dataset], root: Path, data_folder: Path, report: Report
) -> dict[str, Dataset]:
    """Return the splits of one data set under ``root`` once all their images are known to be as annotated.

    Raises UsageError, naming the bad images and their number, unless ``data.bad_images=drop``: then those are left out
    and listed. What was found right is remembered under ``data_folder`` until a file's size or time changes.
    """
    bad = _look_at([s for dataset in datasets.values() for s in dataset.samples], _memory(root, data_folder), report)
    if bad and config.bad_images == "fail":
        raise UsageError(_message(config, datasets, bad))
    good = {}
    for split, dataset in datasets.items():
        samples = [sample for sample in dataset.samples if sample.path not in bad]
        if not samples:
            listed = f"none of {len(dataset.samples):,} images is good" if dataset.samples else "lists no image"
            raise UsageError(f"data={config.name}: the {split} split: {listed}")
        left_out = {str(sample.path): bad[sample.path] for sample in dataset.samples if sample.path in bad}
        good[split] = replace(dataset, samples=samples, left_out=left_out)
    return good


def _message(config: DataConfig, datasets: dict[str, Dataset], bad: dict[Path, str]) -> str:
    total = sum(len(dataset.samples) for dataset in datasets.values())
    lines = list(bad.values())[:SPELLED_OUT]
    more = [f"and {len(bad) - SPELLED_OUT:,} more; `drrepro data check` lists all"] if len(bad) > SPELLED_OUT else []
    first = f"data={config.name}: {len(bad):,} of {total:,} images ({', '.join(datasets)}) are bad"
    return "\n  ".join([f"{first}; mend them, or leave them out with data.bad_images=drop", *lines, *more])


def _look_at(samples: list[Sample], memory: Path, report: Report) -> dict[Path, str]:
    """Return a line for each bad image by its path; ``memory`` is the file of those that were right before."""
    seen = _recall(memory)
    now: Seen = {str(sample.path): _identity(sample) for sample in samples}
    unknown = [sample for sample in samples if now[str(sample.path)] != seen.get(str(sample.path))]
    bad: dict[Path, str] = {}
    if not unknown:
        return bad
    pool = ThreadPoolExecutor(THREADS)
    try:
        for done, (_, line) in enumerate(pool.map(find_problem, unknown), start=1):
            report("check images", done, len(unknown), {})
            if line:
                bad[unknown[done - 1].path] = line
    finally:
        pool.shutdown(cancel_futures=True)  # interrupted, it must not read the others first
    right = {path: entry for path, entry in now.items() if Path(path) not in bad}
    _remember(memory, {**seen, **right})
    return bad


def _identity(sample: Sample) -> list[int]:
    try:
        status = sample.path.stat()
    except (OSError, ValueError):  # a null byte in the name
        return []
    return [status.st_size, status.st_mtime_ns, sample.width, sample.height]


def _memory(root: Path, data_folder: Path) -> Path:
    """Return the file for the data set at ``root``; not in its folder, which may be read-only or shared."""
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return data_folder / ".headers" / f"{name}.json"


def _recall(memory: Path) -> Seen:
    """Return what was right before; a file that is missing, damaged or of another form is as good as none."""
    try:
        content = read_json(memory)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(memory: Path, seen: Seen) -> None:
    with suppress(RunError):  # the headers are then read again the next time: slower, never wrong
        write_text(memory, json.dumps(seen))
