"""How long-running code tells what it does: a `Report` is called; only the command line draws it."""

from collections.abc import Callable

# stage ("data", "train", "evaluate"; of a run in a sweep "ID train"), steps or images done, all, and numbers to show
Report = Callable[[str, int, int, dict[str, float]], None]


def silent(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
    """Show nothing."""


def stage(report: Report, name: str) -> Callable[[int, int], None]:
    """Return a callback of (done, all) that reports under ``name``."""
    return lambda done, total: report(name, done, total, {})
