"""How long-running code tells what it does: a `Report` is called; only the command line draws it."""

from collections.abc import Callable

# stage ("data", "train", "evaluate"), steps or images done, all of them, and numbers to show beside
Report = Callable[[str, int, int, dict[str, float]], None]


def silent(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
    """Show nothing."""
