"""The embedded set `digits`, in COCO format: real handwriting on real photographs, drawn from a fixed seed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from drrepro.data import scenes

IMAGES = {"train": 4000, "tune": 200, "test": 400}
# Shares of each class's handwriting: no digit that is seen in training is seen in another split.
SHARES = {"train": (0.0, 0.6), "tune": (0.6, 0.75), "test": (0.75, 1.0)}
EMPTY = 0.05  # share of images without any object
SEED = 20_190_724


def write_digits(root: Path, progress: Callable[[int, int], None], limit: int | None = None) -> None:
    """Write images/<split>/*.jpg and <split>.json under ``root``; ``progress`` gets (images done, all).

    ``limit`` caps the images of a split.
    """
    digits = load_digits()
    photos = scenes.photographs()
    counts = {split: min(count, limit or count) for split, count in IMAGES.items()}
    done = 0
    for number, (split, count) in enumerate(counts.items()):
        rng = np.random.default_rng([SEED, number])
        pool = _pool(digits.images, digits.target, SHARES[split])
        folder = root / "images" / split
        folder.mkdir(parents=True)
        painted: list[scenes.Scene] = []
        for index in range(count):
            painted.append(scenes.paint_scene(rng, photos, _glyphs(rng, pool), noise=0.02))
            Image.fromarray(painted[-1].image).save(folder / f"{index + 1:05d}.jpg", quality=95)
            done += 1
            progress(done, sum(counts.values()))
        (root / f"{split}.json").write_text(json.dumps(_annotations(painted)))


def _pool(images: scenes.Array, target: scenes.Array, share: tuple[float, float]) -> list[list[Image.Image]]:
    """Return the 8 x 8 masks of each class that belong to one split."""
    pool = []
    for digit in range(10):
        own = images[target == digit]
        chosen = own[int(share[0] * len(own)) : int(share[1] * len(own))]
        pool.append([Image.fromarray((mask * 255 / 16).astype(np.uint8)) for mask in chosen])
    return pool


def _glyphs(rng: np.random.Generator, pool: list[list[Image.Image]]) -> list[scenes.Glyph]:
    """Draw an image's objects and its clutter: digits whose quarters are shuffled and turned."""
    objects = 0 if rng.random() < EMPTY else int(rng.integers(1, 7))
    glyphs = []
    for i in range(objects + int(rng.integers(1, 3))):
        label = int(rng.integers(10))
        mask = pool[label][rng.integers(len(pool[label]))]
        fitted = scenes.fit(
            mask if i < objects else scenes.scramble(rng, mask), scenes.object_side(rng), rng.uniform(-12, 12)
        )
        glyphs.append(scenes.Glyph(fitted, str(label) if i < objects else None, rng.uniform(0.35, 0.8)))
    return glyphs


def _annotations(painted: list[scenes.Scene]) -> dict[str, object]:
    size = {"width": scenes.WIDTH, "height": scenes.HEIGHT}
    annotations: list[dict[str, object]] = []
    for image_id, scene in enumerate(painted, start=1):
        for (x1, y1, x2, y2), label in zip(scene.boxes, scene.labels, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(label) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    return {
        "images": [{"id": i, "file_name": f"{i:05d}.jpg", **size} for i in range(1, len(painted) + 1)],
        "categories": [{"id": digit + 1, "name": str(digit)} for digit in range(10)],
        "annotations": annotations,
    }
