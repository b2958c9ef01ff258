"""The embedded set `letters`, in VOC layout: letters in matplotlib's typefaces on real photographs."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from drrepro.data import scenes

CLASSES = "ABCDEFGHJKLMNPQRSTUY"  # 20, as many as VOC2007 has
IMAGES = {"trainval": 4000, "tune": 160, "test": 320}
# No typeface of trainval is in another split.
TYPEFACES = {
    "trainval": (
        *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-BoldOblique"),
        *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta", "cmss10", "cmtt10"),
    ),
    "tune": ("cmti10", "DejaVuSerifDisplay"),
    "test": ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "cmr10", "cmb10"),
}
EMPTY = 0.05  # share of images without any object
SEED = 20_070_611


def write_letters(root: Path, progress: Callable[[int, int], None], limit: int | None = None) -> None:
    """Write JPEGImages, Annotations and ImageSets/Main under ``root``; ``progress`` gets (images done, all).

    ``limit`` caps the images of a split.
    """
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    photos = scenes.photographs()
    counts = {split: min(count, limit or count) for split, count in IMAGES.items()}
    done = 0
    for number, (split, count) in enumerate(counts.items()):
        rng = np.random.default_rng([SEED, number])
        masks = _masks(TYPEFACES[split])
        names = [f"{split}_{index + 1:05d}" for index in range(count)]
        for name in names:
            scene = scenes.paint_scene(rng, photos, _glyphs(rng, masks), noise=0.02)
            Image.fromarray(scene.image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
            _write_xml(root / "Annotations" / f"{name}.xml", name, scene)
            done += 1
            progress(done, sum(counts.values()))
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


def _masks(typefaces: tuple[str, ...]) -> list[list[Image.Image]]:
    """Return one mask a typeface for each class."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [ImageFont.truetype(folder / f"{name}.ttf", 48) for name in typefaces]
    masks: list[list[Image.Image]] = []
    for letter in CLASSES:
        masks.append([])
        for font in fonts:
            left, top, right, bottom = font.getbbox(letter)
            mask = Image.new("L", (int(right - left) + 4, int(bottom - top) + 4))
            ImageDraw.Draw(mask).text((2 - left, 2 - top), letter, fill=255, font=font)
            masks[-1].append(mask)
    return masks


def _glyphs(rng: np.random.Generator, masks: list[list[Image.Image]]) -> list[scenes.Glyph]:
    """Draw an image's objects, one in ten of them faint or covered, and its clutter."""
    objects = 0 if rng.random() < EMPTY else int(rng.integers(1, 7))
    glyphs = []
    for i in range(objects + int(rng.integers(1, 3))):
        label = int(rng.integers(len(CLASSES)))
        mask = masks[label][rng.integers(len(masks[label]))]
        shape = mask if i < objects else scenes.scramble(rng, mask)
        fitted = scenes.fit(shape, scenes.object_side(rng), rng.uniform(-12, 12))
        faint, covered = rng.random() < 0.05, rng.random() < 0.05
        contrast = rng.uniform(0.08, 0.14) if faint else rng.uniform(0.35, 0.8)
        glyphs.append(scenes.Glyph(fitted, CLASSES[label] if i < objects else None, contrast, covered))
    return glyphs


def _write_xml(path: Path, name: str, scene: scenes.Scene) -> None:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{name}.jpg"
    size = ElementTree.SubElement(root, "size")
    for key, value in (("width", scenes.WIDTH), ("height", scenes.HEIGHT), ("depth", 3)):
        ElementTree.SubElement(size, key).text = str(value)
    for (x1, y1, x2, y2), label, difficult in zip(scene.boxes, scene.labels, scene.difficult, strict=True):
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = label
        ElementTree.SubElement(item, "difficult").text = str(int(difficult))
        box = ElementTree.SubElement(item, "bndbox")
        for key, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            ElementTree.SubElement(box, key).text = str(value)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="unicode")
