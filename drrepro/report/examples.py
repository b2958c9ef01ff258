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
from drrepro.evaluation.bootstrap import resampled_ap
from drrepro.evaluation.coco import Matches, Results
from drrepro.experiments.records import DETECTIONS, MATCHES, Record, read_detections, read_matches
from drrepro.report.drawing import draw_detections
from drrepro.report.evidence import LOSSES, Evidence, Floats, own_threshold

EACH = 2  # images of each kind
SHOWN = 2  # detections for each object of an image, at most
POOL = 1000  # images that are compared, at most: a random part of a larger set
SEED = 0  # of what is drawn at random
LONG_SIDE = 640  # px, of larger images
RULE = (
    "Chosen by rule, not by hand: for each test image with an object, AP of that image alone, each detector at its own "
    f"score threshold. Shown are the {EACH} images where DR is furthest above focal, the {EACH} where focal is "
    f"furthest above DR, and {EACH} drawn at random from the rest; of the first seed that both losses have. Drawn are "
    f"the best detections above the detector's own threshold, at most {SHOWN} for each object, and in the truth the "
    "objects that count."
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
    runs: dict[str, str]  # by loss
    examples: list[Example]
    missing: str = ""


def find_examples(evidence: Evidence, runs: Path, data_folder: Path) -> Examples:
    """Return the examples of a plan's two losses, from detections and matches that its runs have kept."""
    by_loss = {loss: evidence.of(loss) for loss in LOSSES}
    seeds = by_loss["focal"].keys() & by_loss["dr"].keys()
    if not seeds:
        return Examples(evidence.plan.data, {}, [], "Not run with both losses.")
    records = {loss: own[min(seeds)] for loss, own in by_loss.items()}
    names = {loss: record["id"] for loss, record in records.items()}
    try:
        config = from_dict(records["dr"]["config"], runs / names["dr"])
        tested = open_split(config.data, config.evaluation.split, data_folder)
        return Examples(evidence.plan.data, names, _examples(tested, records, runs))
    except (UsageError, RunError) as error:  # the numbers stand without the pictures
        return Examples(evidence.plan.data, names, [], str(error))


def _examples(tested: Dataset, records: dict[str, Record], runs: Path) -> list[Example]:
    samples = sorted(tested.samples, key=lambda sample: sample.id)  # as the matches have them
    ap = [image_ap(read_matches(runs / records[loss]["id"] / MATCHES), own_threshold(records[loss])) for loss in LOSSES]
    if {len(own) for own in ap} != {len(samples)}:
        raise UsageError(f"{records['dr']['data']['test_images']} test images were evaluated, {len(samples)} are here")
    found = {loss: read_detections(runs / record["id"] / DETECTIONS) for loss, record in records.items()}
    chosen = choose(ap[1] - ap[0])
    examples = []
    for place, why in chosen.items():
        values = dict(zip(LOSSES, (own[place] for own in ap), strict=True))
        examples.append(_example(tested, samples[place], why, values, found, records))
    return examples


def image_ap(matches: Matches, threshold: float) -> Floats:
    """Return (I,): AP, per cent, of each image by itself; NaN for one without an object and one not in the pool."""
    images = matches.positives.shape[2]
    pool = np.random.default_rng(SEED).permutation(images)[:POOL]
    ap = np.full(images, np.nan)
    ap[pool] = 100 * resampled_ap(matches, [threshold], np.eye(images, dtype=np.int64)[pool])[0]
    return ap


def choose(gain: Floats) -> dict[int, str]:
    """Return which images to show, and why, from DR's AP minus focal's (I,): see RULE. Ties: the first image."""
    order = np.argsort(-gain, kind="stable")  # NaN comes last
    order = order[: np.count_nonzero(~np.isnan(gain))]
    chosen = {int(i): "DR furthest above focal" for i in order[:EACH] if gain[i] > 0}
    last = np.argsort(gain, kind="stable")[:EACH]
    chosen |= {int(i): "focal furthest above DR" for i in last if gain[i] < 0}
    rest = np.array([i for i in np.sort(order) if i not in chosen], dtype=np.int64)
    drawn = np.random.default_rng(SEED).choice(rest, min(EACH, len(rest)), replace=False)
    return chosen | {int(i): "at random" for i in drawn}


def _example(
    tested: Dataset,
    sample: Sample,
    why: str,
    ap: dict[str, float],
    found: dict[str, Results],
    records: dict[str, Record],
) -> Example:
    image = decode(sample)
    scale = min(1.0, LONG_SIDE / max(image.size))
    image = image.resize((round(scale * image.width), round(scale * image.height)))
    counts = ~sample.ignore
    labels = sample.labels[counts].tolist()
    pictures = [_picture("truth", image, scale * sample.boxes[counts], labels, None, tested.classes)]
    for loss in LOSSES:
        above = own_threshold(records[loss])
        own = [row for row in found[loss] if row["image_id"] == sample.id and row["score"] > above]
        own = sorted(own, key=lambda row: -row["score"])[: SHOWN * np.count_nonzero(counts)]
        boxes = np.array([row["bbox"] for row in own]).reshape(-1, 4) * scale
        boxes[:, 2:] += boxes[:, :2]
        labels = [tested.category_ids.index(row["category_id"]) + 1 for row in own]
        title = f"{loss}, AP {ap[loss]:.0f}"
        pictures.append(_picture(title, image, boxes, labels, [row["score"] for row in own], tested.classes))
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
    drawn.save(packed, "WEBP", quality=80)
    names = [classes[label - 1] for label in labels]
    said = names if scores is None else [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]
    alt = f"{title}: {', '.join(said) or 'nothing'}"
    uri = f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}"
    return Picture(title, alt, uri, drawn.width, drawn.height)
