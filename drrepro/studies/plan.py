"""Plans: which runs a table needs. A plan is kept under runs/plans/, and the report reads it from there."""

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from drrepro.composing import expand
from drrepro.config import compose, for_evaluation, run_id, to_dict
from drrepro.errors import UsageError
from drrepro.files import read_json, write_json
from drrepro.migrations import PLAN_SCHEMA, migrate_plan
from drrepro.schema import Config
from drrepro.shape import EACH, misfit
from drrepro.studies.study import DATA, THRESHOLD, Study, from_dict, load_study

SECOND = {"digits": "letters", "coco2017": "voc2007"}  # the data set of Table 3 that goes with the first
Planned = tuple["Plan", list[Config]]


@dataclass(frozen=True)
class Point:
    """One run of a plan and the place of its numbers in the table; ``setting`` is empty where it has several rows."""

    run_id: str
    arm: str
    setting: str
    seed: int
    value: float | None  # of the study's axis, where that is a number
    axes: dict[str, str]  # of a grid: what was varied


@dataclass(frozen=True)
class Plan:
    """The runs of one table on one data set; without a study the table has a row a run, or a measurement."""

    name: str  # of the plan's file and of what the report writes
    study: Study | None
    data: str
    paper: str | None  # the data set of the paper that ``data`` stands for
    points: list[Point]
    every_row: bool = False  # without a study: a row for each NMS IoU and score threshold, not for the run's own alone


POINT = {"run_id": str, "arm": str, "setting": str, "seed": int, "value": float | None, "axes": {EACH: str}}
SHAPE = {"name": str, "study": ({}, type(None)), "data": str, "paper": str | None, "points": [POINT], "every_row": bool}


def plan_study(study: Study | str, overrides: list[str], config_dir: Path | None = None) -> Planned:
    """Plan a study: each arm, at each setting of its axis, for each seed.

    The losses asked for take the place of its arms: see `Study.with_losses`. Raises UsageError for overrides that
    take several values, which a table has no place for.
    """
    if isinstance(study, str):
        study = load_study(study, config_dir)
    losses = [o.removeprefix("loss=") for o in overrides if o.startswith("loss=")][-1:]
    rest = [o for o in overrides if not o.startswith("loss=")]
    asked = [one.removeprefix("loss=") for text in losses for (one,) in expand([f"loss={text}"])]
    study = study.with_losses(asked) if asked else study
    arms = {name: arm for name, arm in study.arms.items() if name in (asked or study.arms)}
    if study.data and not any(o.startswith(("data=", "experiment=")) for o in rest):
        rest = [f"data={study.data}", *rest]
    seeds = expand(rest)
    _refuse_axes(rest, seeds)
    rows = _rows(study, [*next(iter(arms.values())).overrides, *seeds[0]], config_dir)
    points = [
        (name, setting, [*arm.overrides, *given, *row])
        for name, arm in arms.items()
        for given in seeds
        for setting, row in rows.items()
    ]
    known = _parameters([o for arm in arms.values() for o in arm.overrides], config_dir)
    runs = [(arm, setting, compose(_for_its_loss(given, known), config_dir)) for arm, setting, given in points]
    return _plan(study.name, study, [(arm, setting, config, {}) for arm, setting, config in runs], overrides)


def everything(overrides: list[str], config_dir: Path | None = None) -> list[Planned]:
    """Plan Tables 1 and 2 on the first data set and Tables 1 and 3 on the second that goes with it."""
    first = next((o.removeprefix("data=") for o in overrides if o.startswith("data=")), "digits")
    if first not in SECOND:
        raise UsageError(f"data={first}: all tables are of {' or '.join(SECOND)}; sweep thresholds or scales take any")
    if any(o.startswith("experiment=") for o in overrides):
        raise UsageError("experiment: one table's; `drrepro sweep all` takes data=digits or data=coco2017")
    rest = [o for o in overrides if not o.startswith("data=")]
    tables = (("thresholds", first), ("scales", first), ("datasets", SECOND[first]), ("thresholds", SECOND[first]))
    return [plan_study(name, [f"data={data}", *rest], config_dir) for name, data in tables]


def grid(overrides: list[str], config_dir: Path | None = None, name: str = "grid") -> Planned:
    """Plan any product of axes, such as ``loss=dr,focal seed=0,1``."""
    points = expand(overrides)
    varied = [i for i in range(len(overrides)) if len({point[i] for point in points}) > 1]
    known = _parameters([o for point in points for o in point], config_dir)
    runs = []
    for point in points:
        kept = _for_its_loss(point, known)
        config = compose(kept, config_dir)
        runs.append((config.loss.name, "", config, dict(point[i].split("=", 1) for i in varied if point[i] in kept)))
    return _plan(name, None, runs, overrides)


def nms(trained: list[Config], ious: list[float]) -> Planned:
    """Plan one more evaluation of each trained run, at all NMS IoUs from one forward pass."""
    overrides = [f"evaluation.nms_ious={ious}"]
    configs = [for_evaluation(config, [f"weights=run:{run_id(config)}", *overrides]) for config in trained]
    plan, configs = _plan("nms", None, [(c.loss.name, "", c, {}) for c in configs], overrides)
    return replace(plan, every_row=True), configs


def _plan(
    name: str, study: Study | None, runs: list[tuple[str, str, Config, dict[str, str]]], overrides: list[str]
) -> Planned:
    """Return the plan of runs (arm, setting, configuration, axes) and the configurations, each run once."""
    points: dict[str, Point] = {}
    configs = []
    for arm, setting, config, axes in runs:
        point = Point(run_id(config), arm, setting, config.seed, _value(config, study), axes)
        if point.run_id not in points:
            configs.append(config)
            points[point.run_id] = point
    names = {config.data.name for config in configs}
    if len(names) > 1:
        raise UsageError(f"{' '.join(overrides)}: one sweep takes one data set, not {', '.join(sorted(names))}")
    data = configs[0].data
    if study is not None and study.axis == DATA:
        points = {key: replace(point, setting=data.paper or data.name) for key, point in points.items()}
        study = replace(study, settings={data.paper or data.name: None})
    return Plan(name, study, data.name, data.paper, list(points.values())), configs


def _rows(study: Study, overrides: list[str], config_dir: Path | None) -> dict[str, list[str]]:
    """Return by setting what is overridden for it: nothing where the settings need no runs of their own."""
    if study.axis in (THRESHOLD, DATA):
        return {"": []}
    values: dict[str, Any] = {name: name if value is None else value for name, value in study.settings.items()}
    if study.unit:
        full = _select(compose(overrides, config_dir), study.axis)
        values = {name: round(value * full) for name, value in values.items()}
    return {name: [f"{study.axis}={value}"] for name, value in values.items()}


def _value(config: Config, study: Study | None) -> float | None:
    """Return the value of a study's axis, where that is a number."""
    if study is None or study.axis in (THRESHOLD, DATA):
        return None
    value = _select(config, study.axis)
    return value if isinstance(value, int | float) else None


def _select(config: Config, key: str) -> Any:
    found: Any = to_dict(config)
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            raise UsageError(f"axis {key}: no such key")
        found = found[part]
    return found


def _refuse_axes(overrides: list[str], points: list[list[str]]) -> None:
    for i, override in enumerate(overrides):
        key = override.split("=")[0]
        if key != "seed" and len({point[i] for point in points}) > 1:
            raise UsageError(f"{key}: a table takes one value of it; `drrepro sweep grid` takes several")


def _parameters(overrides: list[str], config_dir: Path | None) -> dict[str, set[str]]:
    """Return by ``loss=`` the keys of the parameters of that loss."""
    losses = sorted({o for o in overrides if o.startswith("loss=")})
    return {loss: {f"loss.{key}" for key in vars(compose([loss], config_dir).loss)} for loss in losses}


def _for_its_loss(point: list[str], parameters: dict[str, set[str]]) -> list[str]:
    """Return the overrides of a run without those of parameters that only other losses of the sweep have."""
    its = next((parameters[override] for override in reversed(point) if override in parameters), set())
    others = set().union(*parameters.values()) - its
    return [override for override in point if override.split("=")[0] not in others]


def as_dict(plan: Plan) -> dict[str, Any]:
    """Return the plan as plain data."""
    return {"schema": PLAN_SCHEMA, **asdict(plan)}


def save_plan(plan: Plan, runs: Path) -> None:
    """Keep the plan; the last one of its name and data set is what the report shows."""
    write_json(runs / "plans" / f"{plan.name}-{plan.data}.json", as_dict(plan))


def load_plans(runs: Path) -> list[Plan]:
    """Return the plans kept under ``runs``. Raises UsageError for a damaged one."""
    return [read_plan(path) for path in sorted((runs / "plans").glob("*.json"))]


def read_plan(path: Path) -> Plan:
    """Return the plan kept in a file. Raises UsageError for a damaged one."""
    try:
        content = migrate_plan(read_json(path), lambda name: load_study(name).as_dict())
        if wrong := misfit(content, SHAPE) or _stray_name(content):
            raise ValueError(wrong)
        study = None if content["study"] is None else from_dict(content["study"])
        points = [Point(**point) for point in content["points"]]
        return Plan(content["name"], study, content["data"], content["paper"], points, content["every_row"])
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path}: not a plan of this version ({error}); remove it and sweep again") from None


def _stray_name(content: dict[str, Any]) -> str:
    """Return what is wrong with the names in a plan that files are called by, if anything."""
    names = [content["name"], content["data"], *(point["run_id"] for point in content["points"])]
    names += [] if content["study"] is None else [content["study"].get("name", "")]
    return next((f"{name!r} is no name" for name in names if not re.fullmatch(r"\w[\w.-]*", str(name))), "")
