"""Draw boxes with class and score on an image."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw, ImageFont

# Okabe and Ito's palette, told apart with any colour vision; class after class, then again from the first.
PALETTE = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
MIN_SIDE, MAX_SIDE = 320, 2000  # px; smaller images are enlarged, or the labels would hide them, up to the latter
Box = tuple[float, float, float, float]  # x1 y1 x2 y2


def draw_detections(
    image: Image.Image,
    boxes: npt.ArrayLike,
    labels: Sequence[int],
    scores: Sequence[float] | None,
    classes: Sequence[str],
) -> Image.Image:
    """Return an RGB copy of ``image`` with its boxes, (N, 4) x1 y1 x2 y2 px, labels 1..K and scores (None: truth).

    A small image is enlarged by a whole factor. The best detections lie on top.
    """
    factor = max(1, min(-(-MIN_SIDE // min(image.size)), MAX_SIDE // max(image.size)))
    canvas = image.convert("RGB").resize((factor * image.width, factor * image.height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    short = min(canvas.size)
    line = max(2, round(short / 250))
    font = ImageFont.truetype(_font_file(), max(11, round(short / 40)))
    corners = factor * np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    order = np.argsort(-np.asarray(scores)) if scores is not None else np.arange(len(corners))
    placed: list[tuple[Box, str, str]] = []
    for i in order:
        name = classes[labels[i] - 1]
        text = name if scores is None else f"{name} {scores[i]:.2f}"
        placed.append(
            (_place(corners[i], text, font, canvas.size, [box for box, *_ in placed]), text, colour(labels[i]))
        )
    for i in order[::-1]:
        x1, y1, x2, y2 = corners[i]
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="black", width=line + 2)
        draw.rectangle((x1, y1, x2, y2), outline=colour(labels[i]), width=line)
    for box, text, background in placed[::-1]:
        draw.rectangle(box, fill=background)
        draw.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), text, _ink(background), font, anchor="mm")
    return canvas


def colour(label: int) -> str:
    """Return the colour of class ``label``, from 1 on."""
    return PALETTE[(label - 1) % len(PALETTE)]


def _place(
    corners: npt.NDArray[np.float64], text: str, font: ImageFont.FreeTypeFont, size: tuple[int, int], taken: list[Box]
) -> Box:
    """Return where a label goes: above its box, inside or below, where it hides no other label if it can."""
    ascent, descent = font.getmetrics()
    width, height = font.getlength(text) + 6, ascent + descent
    x = max(0.0, min(corners[0], size[0] - width))
    places = []
    for top in (corners[1] - height, corners[1], corners[3], corners[3] - height):
        y = max(0.0, min(top, size[1] - height))
        places.append((x, y, x + width, y + height))
    free = [place for place in places if not any(_overlap(place, other) for other in taken)]
    return (free or places)[0]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _ink(background: str) -> str:
    """Return black or white, whichever is read better on ``background``."""
    r, g, b = ImageColor.getrgb(background)[:3]
    return "black" if 0.2126 * r + 0.7152 * g + 0.0722 * b > 110 else "white"


def _font_file() -> str:
    """Return DejaVu Sans, which comes with matplotlib and knows most scripts."""
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf")
