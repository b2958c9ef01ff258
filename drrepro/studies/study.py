"""A study is what a table is: its rows, its columns, and what it is compared with; conf/study/NAME.yaml has its fields.

One of one's own is a yaml in the folder study/ under ``--config-dir``, and runs as `drrepro sweep NAME`.
"""

import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from drrepro.config import config_folder
from drrepro.errors import UsageError
from drrepro.shape import EACH, misfit
from drrepro.studies.published import Published, read_published

THRESHOLD = "evaluation.score_threshold"  # an axis that needs no run of its own: records have the metrics at several
DATA = "data"  # an axis of one value, the data set at hand
RECIPE = "recipe"  # an axis whose settings are what the arms say of them
PAPER = ("thresholds", "scales", "datasets")  # the studies of the paper, in the order of its tables


@dataclass(frozen=True)
class Arm:
    """A column: a way to train, as what is overridden, and what it is called.

    ``at``: by setting, what is overridden there besides, where the axis is RECIPE. Of that, evaluation keys need no
    training: the trained run is evaluated again.
    """

    name: str
    overrides: list[str]
    at: dict[str, list[str]] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """The name within a sentence about losses."""
        return self.name.removesuffix(" loss")


@dataclass(frozen=True)
class Study:
    """What a table is. ``settings``: the rows; where each is a run of its own, with the value of ``axis``."""

    name: str
    what: str  # that is varied, in the title
    head: str  # of the first column
    axis: str  # THRESHOLD, DATA, RECIPE, or a key such as input.scale
    arms: dict[str, Arm]
    baseline: str
    metrics: list[str]
    settings: dict[str, float | None] = field(default_factory=dict)
    question: str = ""  # that it answers, as the page asks it
    unit: str = ""  # settings are fractions of the configured value, in this unit
    number: int | None = None  # of the paper's table
    data: str | None = None  # the data set, if none is asked for
    published: Published | None = None
    claims: list[str] = field(default_factory=list)  # of drrepro.report.paper_claims, or module.function of one's own
    figures: list[str] = field(default_factory=list)  # of drrepro.report.figures

    @property
    def title(self) -> str:
        """What the table is called."""
        return self.name if self.number is None else f"Table {self.number}"

    @property
    def stem(self) -> str:
        """The name of its files."""
        return self.name if self.number is None else f"table{self.number}"

    @property
    def candidates(self) -> list[str]:
        """The arms beside the baseline."""
        return [arm for arm in self.arms if arm != self.baseline]

    def short(self, candidate: str) -> tuple[str, str]:
        """Return how sentences call a candidate and the baseline."""
        return self.arms[candidate].short, self.arms[self.baseline].short

    def published_at(self, setting: str, arm: str, metric: str) -> float | None:
        """Return the paper's number as a fraction, None where there is none.

        Of a table of one row that row counts, whatever the data set is called here.
        """
        rows = self.published.numbers if self.published else {}
        if self.axis == DATA and len(rows) == 1:
            (setting,) = rows
        return rows.get(setting, {}).get(arm, {}).get(metric)

    def with_losses(self, losses: list[str]) -> "Study":
        """Return the study of other losses: those of its arms, or if there are others these alone."""
        if set(losses) <= self.arms.keys():
            return self
        arms = {loss: self.arms.get(loss, Arm(f"{loss} loss", [f"loss={loss}"])) for loss in losses}
        return replace(self, arms=arms, baseline=self.baseline if self.baseline in arms else losses[0])

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, which `from_dict` takes."""
        return asdict(self)


LIST = [str]
SHAPE = {  # of the content of a yaml; all but the first five may be left out
    **dict.fromkeys(("what", "head", "axis", "baseline", "question"), str),
    "arms": {EACH: {"name": str, "overrides": LIST, "at": {EACH: LIST}}},
    "settings": ({EACH: float | None}, LIST),
    "metrics": LIST,
    "unit": str,
    "number": int | None,
    "data": str | None,
    "published": ({"data": str, "of": str, "numbers": {EACH: {EACH: ([float], {EACH: float})}}}, type(None)),
    "claims": LIST,
    "figures": LIST,
}
NEEDED = ("what", "head", "axis", "arms", "baseline", "metrics")


def study_names(config_dir: Path | None = None) -> list[str]:
    """Return the names of the studies that there are: the paper's first."""
    found = {path.stem for folder in _folders(config_dir) for path in folder.glob("*.yaml")}
    return [*PAPER, *sorted(found - set(PAPER))]


def load_study(name: str, config_dir: Path | None = None) -> Study:
    """Return a study by its name. Raises UsageError for an unknown one, and for a yaml that is none."""
    for folder in _folders(config_dir):
        path = folder / f"{name}.yaml"
        if path.is_file():
            return _read(path)
    raise UsageError(f"study {name}: not known; choose from {', '.join(study_names(config_dir))}")


def from_dict(content: dict[str, Any], per_cent: bool = False) -> Study:
    """Return a study from plain data, its published numbers fractions or ``per_cent``.

    Raises ValueError, naming the key, for what is none.
    """
    _require_text_keys(content, "")
    arms = content.get("arms")
    if isinstance(arms, dict):
        content = {**content, "arms": {k: {"at": {}, **a} if isinstance(a, dict) else a for k, a in arms.items()}}
    shape = {key: shape for key, shape in SHAPE.items() if key in content or key in NEEDED}
    if wrong := misfit(content, {"name": str, **shape}, "the study"):
        raise ValueError(wrong)
    if unknown := content.keys() - SHAPE.keys() - {"name"}:
        raise ValueError(f"the study has no {', '.join(sorted(unknown))}")
    if not re.fullmatch(r"\w[\w.-]*", content["name"]):
        raise ValueError(f"name {content['name']}: takes letters, digits and ._-")
    if content.get("number") is not None and content["name"] not in PAPER:
        raise ValueError("number: only the paper's own tables have one; leave it out")
    if not content["metrics"]:
        raise ValueError("metrics: needs one at least")
    for metric in content["metrics"]:
        split_metric(metric)
    if content["baseline"] not in content["arms"]:
        raise ValueError(f"baseline {content['baseline']} is none of arms")
    settings = content.get("settings", {})
    if content["axis"] == THRESHOLD:
        thresholds = list(map(float, settings))  # or ValueError
        if len(thresholds) < 2 or not all(0 <= threshold < 1 for threshold in thresholds):
            raise ValueError("settings: needs two score thresholds at least, from 0 to below 1")
    elif content["axis"] != DATA and not settings:
        raise ValueError("settings: needs one at least")
    if content.get("unit") and (isinstance(settings, list) or None in settings.values()):
        raise ValueError("unit: needs settings with a fraction each")
    for name, arm in content["arms"].items():
        if unknown := arm["at"].keys() - set(settings):
            raise ValueError(f"arms.{name}.at: {', '.join(sorted(unknown))} is none of settings")
    own = {
        "arms": {name: Arm(**arm) for name, arm in content["arms"].items()},
        "settings": dict.fromkeys(settings) if isinstance(settings, list) else settings,
        "published": read_published(content.get("published"), content["metrics"], per_cent),
    }
    return Study(**{**content, **own})


def split_metric(metric: str) -> tuple[str, float | None]:
    """Return a metric and the score threshold that it is at, as in "AP at 0.5"; None: the run's own.

    Raises ValueError for what is no threshold.
    """
    name, at, threshold = metric.partition(" at ")
    try:
        return name, float(threshold) if at else None
    except ValueError:
        raise ValueError(f"metrics: {metric}: needs a score threshold after at") from None


def _require_text_keys(content: Any, where: str) -> None:
    """Raise ValueError for a key that yaml takes for a number, say."""
    for key, value in content.items() if isinstance(content, dict) else ():
        if not isinstance(key, str):
            raise ValueError(f"{where}{key}: put it in quotes")
        _require_text_keys(value, f"{where}{key}.")


def _folders(config_dir: Path | None) -> list[Path]:
    return [folder / "study" for folder in (config_dir, config_folder()) if folder is not None]


def _read(path: Path) -> Study:
    try:
        content = yaml.safe_load(path.read_text())
        if not isinstance(content, dict):
            raise ValueError("no keys in it")
        return from_dict({**content, "name": path.stem}, per_cent=True)
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: not a study ({str(error).splitlines()[0]})") from None
