"""Paint glyphs on crops of real photographs: what the two embedded data sets have in common."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_sample_images

Array = npt.NDArray[np.float64]

HEIGHT, WIDTH = 128, 160
MIN_SIDE, MAX_SIDE = 10, 64  # px, of the longer side of an object


@dataclass(frozen=True)
class Glyph:
    """A mask of (h, w) in [0, 1] to paint; ``label`` is None for clutter, ``contrast`` is in units of 255."""

    mask: Array
    label: str | None
    contrast: float
    covered: bool = False


@dataclass
class Scene:
    """A (HEIGHT, WIDTH, 3) uint8 image with the boxes (x1, y1, x2, y2), labels and difficulty of its objects."""

    image: npt.NDArray[np.uint8]
    boxes: list[tuple[int, int, int, int]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)


def photographs() -> list[Image.Image]:
    """Return the two sample photographs that scikit-learn ships."""
    return [Image.fromarray(image) for image in load_sample_images().images]


def object_side(rng: np.random.Generator) -> int:
    """Draw the longer side of an object, px: uniform in its logarithm."""
    return round(math.exp(rng.uniform(math.log(MIN_SIDE), math.log(MAX_SIDE))))


def fit(mask: Image.Image, side: int, angle: float) -> Array:
    """Turn an 8-bit mask by ``angle`` degrees, trim it, and resize it so that its longer side is ``side`` px."""
    finer = 64 / max(mask.size)
    enlarged = mask.resize((round(finer * mask.width), round(finer * mask.height)), Image.Resampling.BICUBIC)
    turned = enlarged.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    trimmed = turned.crop(turned.point(lambda v: 255 * (v > 64)).getbbox())
    ratio = side / max(trimmed.size)
    size = (max(3, round(trimmed.width * ratio)), max(3, round(trimmed.height * ratio)))
    resized = np.asarray(trimmed.resize(size, Image.Resampling.BICUBIC), dtype=np.float64)
    return resized / max(1.0, float(resized.max()))


def scramble(rng: np.random.Generator, mask: Image.Image) -> Image.Image:
    """Make clutter of a glyph: its four quarters, each turned, in another order."""
    side = 2 * (max(mask.size) // 2)
    pixels = np.asarray(mask.resize((side, side)))
    quarters = [np.rot90(q, int(rng.integers(4))) for half in np.split(pixels, 2) for q in np.split(half, 2, axis=1)]
    a, b, c, d = (quarters[i] for i in rng.permutation(4))
    return Image.fromarray(np.block([[a, b], [c, d]]))


def paint_scene(
    rng: np.random.Generator, photos: Sequence[Image.Image], glyphs: Sequence[Glyph], noise: float
) -> Scene:
    """Paint ``glyphs`` at random places without much overlap; one that finds no place is left out."""
    canvas = _background(rng, photos)
    behind = canvas.copy()
    scene = Scene(np.empty((0,), dtype=np.uint8))
    taken: list[tuple[int, int, int, int]] = []
    for glyph in glyphs:
        box = _place(rng, glyph.mask.shape, taken)
        if box is None:
            continue
        taken.append(box)
        _blend(rng, canvas, glyph, box)
        if glyph.covered:
            _cover(rng, canvas, behind, box)
        if glyph.label is not None:
            scene.boxes.append(box)
            scene.labels.append(glyph.label)
            scene.difficult.append(glyph.covered or glyph.contrast < 0.15)
    canvas += rng.normal(0, 255 * noise, canvas.shape)
    scene.image = np.clip(np.round(canvas), 0, 255).astype(np.uint8)
    return scene


def _background(rng: np.random.Generator, photos: Sequence[Image.Image]) -> Array:
    photo = photos[int(rng.integers(len(photos)))]
    height = int(rng.integers(HEIGHT, photo.height + 1))
    width = min(photo.width, height * WIDTH // HEIGHT)
    x, y = int(rng.integers(photo.width - width + 1)), int(rng.integers(photo.height - height + 1))
    crop = photo.crop((x, y, x + width, y + height)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    pixels: Array = np.asarray(crop, dtype=np.float64)
    faded: Array = pixels.mean() + rng.uniform(0.3, 0.8) * (pixels - pixels.mean())
    return faded


def _place(
    rng: np.random.Generator, shape: tuple[int, ...], taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    height, width = shape
    for _ in range(30):
        x, y = int(rng.integers(WIDTH - width + 1)), int(rng.integers(HEIGHT - height + 1))
        box = (x, y, x + width, y + height)
        if all(_overlap(box, other) < 0.15 for other in taken):
            return box
    return None


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection over the smaller of the two areas."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(0, w) * max(0, h) / smaller


def _blend(rng: np.random.Generator, canvas: Array, glyph: Glyph, box: tuple[int, int, int, int]) -> None:
    """Paint in a random hue that is lighter or darker than what lies behind by the glyph's contrast."""
    x1, y1, x2, y2 = box
    patch = canvas[y1:y2, x1:x2]
    level = patch.mean()
    up = level < 90 or (level < 165 and rng.random() < 0.5)
    colour = level + (1 if up else -1) * 255 * glyph.contrast + rng.normal(0, 25, 3)
    alpha = glyph.mask[..., None]
    patch[:] = (1 - alpha) * patch + alpha * colour


def _cover(rng: np.random.Generator, canvas: Array, behind: Array, box: tuple[int, int, int, int]) -> None:
    """Put back what was behind one half of the box."""
    x1, y1, x2, y2 = box
    middle_x, middle_y = (x1 + x2) // 2, (y1 + y2) // 2
    halves = [(x1, y1, middle_x, y2), (middle_x, y1, x2, y2), (x1, y1, x2, middle_y), (x1, middle_y, x2, y2)]
    a, b, c, d = halves[rng.integers(4)]
    canvas[b:d, a:c] = behind[b:d, a:c]
