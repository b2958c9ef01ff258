"""The colours and names of arms, the same in all figures: the paper's two first, then any other in their order."""

from collections.abc import Iterable

from drrepro.studies.study import PAPER, Arm, load_study

# By place; the page has each for light and for dark, as --arm0, --arm1 and so on.
COLOURS = ("#c1532f", "#1f6f8b", "#5b7f1f", "#8a4c9c", "#9a6a00", "#3d5fb0", "#b03a6f", "#4a7a6d")
BACKGROUND = "#6b6b6b"


class Style:
    """Colours and names of ``arms``."""

    def __init__(self, arms: dict[str, Arm]) -> None:
        self.arms = {**load_study(PAPER[0]).arms, **arms}

    def colour(self, arm: str) -> str:
        """Return the colour of an arm; after the last they begin again."""
        return COLOURS[list(self.arms).index(arm) % len(COLOURS)]

    def name(self, arm: str) -> str:
        """Return what an arm is called."""
        return self.arms[arm].name


def style_of(losses: Iterable[str]) -> Style:
    """Return the style of runs that belong to no study, by their losses."""
    return Style({loss: Arm(f"{loss} loss", []) for loss in losses if loss not in load_study(PAPER[0]).arms})
