"""How far --dry-run is from what runs take: four configurations, estimated, then carried out."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_sample_images

from drrepro.config import compose
from drrepro.data.embedded import make_embedded
from drrepro.experiments.forecast import forecast
from drrepro.experiments.run import run
from drrepro.files import write_json
from drrepro.progress import silent
from drrepro.schema import Config

PHOTOGRAPHS = {"train": 32, "test": 16}
SIZE = (1080, 1920)  # height and width
BOXES = 6  # of a photograph
SMALL = ["loss=dr", "schedule.warmup_steps=1", "schedule.clip_norm=1"]
CONFIGS = {
    "small 128 px, digits": ["data=digits", "schedule.steps=150"],
    "small 256 px, photographs of 1080p": ["input.scale=256", "schedule.steps=30"],
    "resnet18 256 px, photographs": ["model=resnet18", "input.scale=256", "schedule.steps=8"],
    "resnet50 400 px, photographs": [
        *("model=resnet50", "input.scale=400", "schedule.steps=6", "schedule.images_per_step=2"),
    ],
}


def bench(progress: Callable[[int, int], None]) -> pd.DataFrame:
    """Return for each of CONFIGS the seconds estimated and measured, from the start of the run to its record."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_embedded("digits", folder, lambda done, total: None, limit=200)
        write_photographs(folder / "photographs")
        for done, (what, overrides) in enumerate(CONFIGS.items(), start=1):
            config = _compose(overrides, folder)
            (cost,) = forecast([config], folder / "runs", folder, 1, lambda done, total: None).costs
            start = time.perf_counter()
            run(config, folder / "runs", folder, silent)
            seconds = time.perf_counter() - start
            rows.append({"run": what, "estimated": cost.seconds, "measured": seconds, "ratio": cost.seconds / seconds})
            progress(done, len(CONFIGS))
    return pd.DataFrame(rows)


def _compose(overrides: list[str], folder: Path) -> Config:
    if not any(override.startswith("data=") for override in overrides):
        keys = [
            f"data.{split}_{part}={split}{end}"
            for split in PHOTOGRAPHS
            for part, end in (("json", ".json"), ("images", ""))
        ]
        overrides = ["data=coco_custom", f"data.root={folder / 'photographs'}", *keys, *overrides]
    config = compose([*overrides, *SMALL])
    config.data.sha256 = None  # the images are those of ``folder``
    return config


def write_photographs(root: Path) -> None:
    """Write a set in COCO's format of crops of scikit-learn's two photographs, enlarged to 1080p, with random boxes."""
    rng = np.random.default_rng(0)
    for split, count in PHOTOGRAPHS.items():
        (root / split).mkdir(parents=True)
        images, boxes = [], []
        for i in range(count):
            photograph = Image.fromarray(load_sample_images().images[i % 2])
            left, top = (int(rng.integers(0, 100)) for _ in range(2))
            crop = photograph.crop((left, top, photograph.width - 100 + left, photograph.height - 100 + top))
            crop.resize(SIZE[::-1], Image.Resampling.BICUBIC).save(root / split / f"{i}.jpg", quality=90)
            images.append({"id": i, "file_name": f"{i}.jpg", "width": SIZE[1], "height": SIZE[0]})
            for x, y, w, h in rng.uniform((0, 0, 100, 100), (1400, 700, 500, 380), (BOXES, 4)).tolist():
                boxes.append({"image_id": i, "category_id": 1, "bbox": [x, y, w, h]})
        content = {"images": images, "categories": [{"id": 1, "name": "thing"}], "annotations": boxes}
        write_json(root / f"{split}.json", content)
