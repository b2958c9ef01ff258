"""The folder of a run: the one place that knows what its files are called."""

from pathlib import Path


class RunFolder:
    """What a run keeps, by name; ``id`` is the name of the folder, which need not exist."""

    def __init__(self, path: Path) -> None:
        self.path, self.id = path, path.name
        self.config = path / "config.yaml"
        self.status = path / "status.json"  # what it last said of itself
        self.record = path / "record.json"  # that it is done, and what it measured
        self.metrics = path / "metrics.jsonl"  # a line a logged step
        self.checkpoint = path / "checkpoint.pt"
        self.checkpoint_before = path / "checkpoint.before.pt"  # the last but one, in case the last is damaged
        self.matches = path / "matches.npz"
        self.densities = path / "densities.npz"  # of scores, image by image
        self.detections = path / "detections.json.gz"
        self.resampled = path / "bootstrap.npz"  # AP of resampled test images: made from the matches
        self.separated = path / "separation.npz"  # the same of how far the densities lie apart
        self.log = path / "log.txt"  # what its process in a sweep printed
        self.lock = path / ".lock"
        self.owner = path / "owner.json"
        self.tracked = path / "tracker.json"  # the name of the run in an experiment tracker

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def checkpoints(self) -> tuple[Path, Path]:
        """The last checkpoint, and the one before."""
        return self.checkpoint, self.checkpoint_before


def weights_path(weights: str, runs: Path) -> Path:
    """Return the file of ``weights``: run:ID or PATH."""
    return RunFolder(runs / weights.removeprefix("run:")).checkpoint if weights.startswith("run:") else Path(weights)


def run_folders(runs: Path) -> list[RunFolder]:
    """Return the folders of all runs under ``runs``, by name."""
    return [RunFolder(path.parent) for path in sorted(runs.glob("*/config.yaml"))]
