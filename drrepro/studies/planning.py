"""Which runs a table needs: of a study, of all of the paper's, of a grid."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from drrepro.composing import expand
from drrepro.config import compose, for_evaluation, run_id, to_dict
from drrepro.errors import UsageError
from drrepro.schema import Config
from drrepro.studies.plan import Plan, Point
from drrepro.studies.study import DATA, RECIPE, THRESHOLD, Study, load_study

SECOND = {"digits": "letters", "coco2017": "voc2007"}  # the data set of Table 3 that goes with the first
Planned = tuple[Plan, list[Config]]


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
    said = [o for arm in arms.values() for own in (arm.overrides, *arm.at.values()) for o in own]
    known = _parameters(said, config_dir)
    runs: list[tuple[str, str, Config, dict[str, str]]] = []
    trained: list[Config] = []
    for name, arm in arms.items():
        for given in seeds:
            for setting, row in rows.items():
                recipe = [*arm.overrides, *given, *row, *arm.at.get(setting, [])]
                train, point = _recipe(_for_its_loss(recipe, known), arm.at.get(setting, []), config_dir)
                trained.append(train)
                runs.append((name, setting, point, {}))
    plan, configs = _plan(study.name, study, runs, overrides)
    return plan, list({run_id(config): config for config in [*trained, *configs]}.values())


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
    points: dict[tuple[str, str, str], Point] = {}  # a run may stand in several rows
    by_id: dict[str, Config] = {}
    for arm, setting, config, axes in runs:
        point = Point(run_id(config), arm, setting, config.seed, _value(config, study), axes)
        points.setdefault((point.run_id, arm, setting), point)
        by_id.setdefault(point.run_id, config)
    configs = list(by_id.values())
    names = {config.data.name for config in configs}
    if len(names) > 1:
        raise UsageError(f"{' '.join(overrides)}: one sweep takes one data set, not {', '.join(sorted(names))}")
    data = configs[0].data
    if study is not None and study.axis == DATA:
        points = {key: replace(point, setting=data.paper or data.name) for key, point in points.items()}
        study = replace(study, settings={data.paper or data.name: None})
    return Plan(name, study, data.name, data.paper, list(points.values())), configs


def _recipe(overrides: list[str], at: list[str], config_dir: Path | None) -> tuple[Config, Config]:
    """Return the run to train, and the one to measure: that one, evaluated again where ``at`` has evaluation keys."""
    evaluation = [o for o in at if o.startswith("evaluation.")]
    trained = compose([o for o in overrides if o not in evaluation], config_dir)
    if not evaluation:
        return trained, trained
    measured = for_evaluation(trained, [f"weights=run:{run_id(trained)}", *evaluation], config_dir)
    return trained, trained if measured.evaluation == trained.evaluation else measured


def _rows(study: Study, overrides: list[str], config_dir: Path | None) -> dict[str, list[str]]:
    """Return by setting what is overridden for it: nothing where the settings need no runs of their own."""
    if study.axis in (THRESHOLD, DATA):
        return {"": []}
    if study.axis == RECIPE:
        return {name: [] for name in study.settings}
    values: dict[str, Any] = {name: name if value is None else value for name, value in study.settings.items()}
    if study.unit:
        full = _select(compose(overrides, config_dir), study.axis)
        if not isinstance(full, int | float):
            raise UsageError(f"axis {study.axis}: {full!r} has no fractions")
        values = {name: round(value * full) for name, value in values.items()}
    return {name: [f"{study.axis}={value}"] for name, value in values.items()}


def _value(config: Config, study: Study | None) -> float | None:
    """Return the value of a study's axis, where that is a number."""
    if study is None or study.axis in (THRESHOLD, DATA, RECIPE):
        return None
    try:
        value = _select(config, study.axis)
    except UsageError:  # of an arm that has no such parameter
        return None
    return value if isinstance(value, int | float) else None


def _select(config: Config, key: str) -> Any:
    found: Any = to_dict(config)
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            raise UsageError(f"axis {key}: no such key with loss={config.loss.name}")
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
