"""Figures as parts of a page: SVG whose ink and colours are the page's own, light or dark."""

import io
import re
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from drrepro.report.style import BACKGROUND, COLOURS

INK, PAPER = "#101010", "#fefefe"  # stand for the page's
THEME: Any = {  # of matplotlib's settings
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "legend.facecolor": PAPER,
    "svg.fonttype": "none",  # text stays text, in the page's font
}
PAGE = {  # what a colour is on the page
    INK: "currentColor",
    PAPER: "var(--page)",
    BACKGROUND: "var(--muted)",
    **{colour: f"var(--arm{place})" for place, colour in enumerate(COLOURS)},
}


def svg(figure: Figure, name: str) -> str:
    """Return the figure as an SVG element; ``name`` keeps its ids apart from those of others.

    Draw it under ``matplotlib.rc_context(THEME)``.
    """
    packed = io.BytesIO()
    with matplotlib.rc_context({**THEME, "svg.hashsalt": name}):  # the same figure, the same text
        figure.savefig(packed, format="svg", transparent=True, metadata={"Date": None})
    text = packed.getvalue().decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r'font-family: [^;"]*;?', "", text)
    for colour, own in PAGE.items():
        text = text.replace(colour, own)
    return text
