"""Test images to look at, chosen by a rule: truth, focal and DR side by side."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from drrepro.config import from_dict
from drrepro.data.dataset import Dataset, Sample
from drrepro.data.pixels import decode
from drrepro.data.splits import open_split
from drrepro.errors import RunError, UsageError
from drrepro.evaluation.coco import Matches, Results
from drrepro.report.drawing import draw_detections
from drrepro.report.evidence import Evidence, own_threshold
from drrepro.runs.folder import RunFolder
from drrepro.runs.kept import read_detections, read_matches
from drrepro.runs.records import Record
from drrepro.studies.study import Study

Ints = npt.NDArray[np.int64]

EACH = 2  # images of each kind
SEED = 0  # of what is drawn at random
LONG_SIDE = 480  # px, of larger images
RULE = (
    "Chosen by rule, not by hand. Of each detector on each test image, as many of the best detections above its own "
    "score threshold as the image has objects: how many of these objects do they find, with the right class and an IoU "
    f"of 0.5? Shown are the {EACH} images where the candidate finds most more than the baseline, the {EACH} where the "
    f"baseline finds most more, and {EACH} of the rest, all ties drawn at random; of the first seed that both have. "
    "Drawn is what was counted."
)


@dataclass(frozen=True)
class Picture:
    """``data``: a URI that holds the picture itself; its size in px."""

    title: str
    alt: str
    data: str
    width: int
    height: int


@dataclass(frozen=True)
class Example:
    """One test image."""

    file: str
    why: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Examples:
    """Those of a data set; ``missing`` says why there are none."""

    data: str
    runs: dict[str, str]  # by arm: the baseline, the first candidate
    examples: list[Example]
    missing: str = ""


def find_examples(evidence: Evidence, runs: Path, data_folder: Path) -> Examples:
    """Return the examples of a study's baseline and first candidate, from the detections and matches of its runs."""
    arms = [evidence.study.baseline, *evidence.study.candidates[:1]]
    by_arm = {arm: evidence.of(arm) for arm in arms}
    seeds = set.intersection(*(set(by_seed) for by_seed in by_arm.values()))
    if not seeds or len(arms) < 2:
        return Examples(evidence.plan.data, {}, [], "Not run with both losses.")
    records = {arm: by_seed[min(seeds)] for arm, by_seed in by_arm.items()}
    names = {arm: record["id"] for arm, record in records.items()}
    try:
        config = from_dict(records[arms[1]]["config"], runs / names[arms[1]])
        tested = open_split(config.data, config.evaluation.split, data_folder)
        return Examples(evidence.plan.data, names, _examples(tested, evidence.study, records, runs))
    except (UsageError, RunError) as error:  # the numbers stand without the pictures
        return Examples(evidence.plan.data, names, [], str(error))


def _examples(tested: Dataset, study: Study, records: dict[str, Record], runs: Path) -> list[Example]:
    samples = sorted(tested.samples, key=lambda sample: sample.id)  # as the matches have them
    folders = {arm: RunFolder(runs / record["id"]) for arm, record in records.items()}
    kept = {arm: read_detections(folder.detections) for arm, folder in folders.items()}
    ids = {sample.id for sample in samples}
    for arm, record in records.items():
        same = record["data"]["test_images"] == len(samples) and record["data"]["classes"] == tested.classes
        if not same or not {row["image_id"] for row in kept[arm]} <= ids:
            raise UsageError(f"{record['id']}: evaluated on other test images than those here")
    hits, objects = {}, np.zeros(0, np.int64)
    for arm, folder in folders.items():
        hits[arm], objects = objects_found(read_matches(folder.matches), own_threshold(records[arm]))
    baseline, candidate = records
    names = study.arms[candidate].short, study.arms[baseline].short
    chosen = choose(hits[candidate] - hits[baseline], objects, names)
    return [
        _example(
            tested, samples[place], why, {arm: int(counted[place]) for arm, counted in hits.items()}, kept, records
        )
        for place, why in chosen.items()
    ]


def objects_found(matches: Matches, threshold: float) -> tuple[Ints, Ints]:
    """Return (I,) how many objects the best detections of each image find at an IoU of 0.5, and (I,) its objects.

    Of an image with n objects that count, the n best detections above the score threshold.
    """
    objects: Ints = matches.positives[0].sum(axis=0).astype(np.int64)
    order = np.lexsort((-matches.scores, matches.images))
    images = matches.images[order]
    place = np.arange(len(images)) - np.searchsorted(images, images)  # among those of its image
    best = order[(place < objects[images]) & (matches.scores[order] > threshold)]
    hits = np.bincount(matches.images[best], weights=matches.true[0, 0, best], minlength=len(objects))
    return hits.astype(np.int64), objects


def choose(gain: Ints, objects: Ints, names: tuple[str, str]) -> dict[int, str]:
    """Return which images to show, and why, from the objects (I,) that the first finds more than the second: see RULE.

    ``names`` of the two.
    """
    order = np.random.default_rng(SEED).permutation(np.flatnonzero(objects))
    by_gain = order[np.argsort(-gain[order], kind="stable")]
    chosen = {int(i): f"{names[0]} finds most more" for i in by_gain[:EACH] if gain[i] > 0}
    chosen |= {int(i): f"{names[1]} finds most more" for i in by_gain[::-1][:EACH] if gain[i] < 0}
    rest = [int(i) for i in order if i not in chosen]
    return chosen | dict.fromkeys(rest[:EACH], "at random")


def _example(
    tested: Dataset,
    sample: Sample,
    why: str,
    hits: dict[str, int],
    kept: dict[str, Results],
    records: dict[str, Record],
) -> Example:
    image = decode(sample)
    scale = min(1.0, LONG_SIDE / max(image.size))
    image = image.resize((round(scale * image.width), round(scale * image.height)))
    counts = ~sample.ignore
    labels = sample.labels[counts].tolist()
    pictures = [_picture("truth", image, scale * sample.boxes[counts], labels, None, tested.classes)]
    for arm, record in records.items():
        above = own_threshold(record)
        rows = [row for row in kept[arm] if row["image_id"] == sample.id and row["score"] > above]
        rows = sorted(rows, key=lambda row: -row["score"])[: np.count_nonzero(counts)]
        boxes = np.array([row["bbox"] for row in rows]).reshape(-1, 4) * scale
        boxes[:, 2:] += boxes[:, :2]
        labels = [tested.category_ids.index(row["category_id"]) + 1 for row in rows]
        title = f"{arm}: {hits[arm]} of {np.count_nonzero(counts)} found"
        pictures.append(_picture(title, image, boxes, labels, [row["score"] for row in rows], tested.classes))
    return Example(sample.path.name, why, pictures)


def _picture(
    title: str,
    image: Image.Image,
    boxes: npt.NDArray[np.float64],
    labels: list[int],
    scores: list[float] | None,
    classes: list[str],
) -> Picture:
    packed = io.BytesIO()
    drawn = draw_detections(image, boxes, labels, scores, classes)
    drawn.thumbnail((LONG_SIDE, LONG_SIDE))  # it was enlarged if its short side is
    drawn.save(packed, "WEBP", quality=75)
    names = [classes[label - 1] for label in labels]
    said = names if scores is None else [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]
    alt = f"{title}: {', '.join(said) or 'nothing'}"
    uri = f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}"
    return Picture(title, alt, uri, drawn.width, drawn.height)
