"""Plans: which runs a table needs. A plan is kept under runs/plans/, and the report reads it from there."""

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from drrepro.config import compose, expand, for_evaluation, run_id
from drrepro.errors import UsageError
from drrepro.files import read_json, write_json
from drrepro.schema import Config
from drrepro.shape import EACH, misfit

KINDS = {1: "thresholds", 2: "scales", 3: "datasets"}  # by the paper's tables
FACTORS = (0.5, 0.625, 0.75, 0.875, 1.0)  # 400..800 of 800 px
LOSSES = "loss=focal,dr"
SECOND = {"digits": "letters", "coco2017": "voc2007"}  # the data set of Table 3 that goes with the first


@dataclass(frozen=True)
class Cell:
    """One run of a plan and the place of its numbers in the table; ``setting`` is a row of paper.csv, or empty."""

    run_id: str
    loss: str
    setting: str
    scale: int
    seed: int
    axes: dict[str, str]  # of a grid: what was varied


@dataclass(frozen=True)
class Plan:
    """The runs of one table on one data set."""

    kind: str  # thresholds | scales | datasets | nms | grid
    name: str  # of the plan's file and of what the report writes: the kind, or a grid's own name
    data: str
    paper: str | None  # the data set of the paper that ``data`` stands for
    cells: list[Cell]


CELL = {"run_id": str, "loss": str, "setting": str, "scale": int, "seed": int, "axes": {EACH: str}}
SHAPE = {"kind": str, "name": str, "data": str, "paper": str | None, "cells": [CELL]}  # of a plan's file


def thresholds(overrides: list[str], config_dir: Path | None = None) -> tuple[Plan, list[Config]]:
    """Plan Table 1: both losses; every record holds all score thresholds."""
    return _plan("thresholds", [LOSSES, *overrides], config_dir, lambda config: "")


def scales(overrides: list[str], config_dir: Path | None = None) -> tuple[Plan, list[Config]]:
    """Plan Table 2: both losses at the paper's five fractions of the configured scale, trained and tested there."""
    full = compose(expand(overrides)[0], config_dir).input.scale
    of = {round(factor * full): str(round(800 * factor)) for factor in FACTORS}
    axis = f"input.scale={','.join(str(scale) for scale in of)}"
    rest = [o for o in overrides if not o.startswith("input.scale=")]
    return _plan("scales", [LOSSES, *rest, axis], config_dir, lambda config: of[config.input.scale])


def datasets(overrides: list[str], config_dir: Path | None = None) -> tuple[Plan, list[Config]]:
    """Plan Table 3: both losses on the second data set, by default letters, nothing tuned again."""
    data = [] if any(o.startswith(("data=", "experiment=")) for o in overrides) else ["data=letters"]
    return _plan(
        "datasets", [LOSSES, *data, *overrides], config_dir, lambda config: config.data.paper or config.data.name
    )


def everything(overrides: list[str], config_dir: Path | None = None) -> list[tuple[Plan, list[Config]]]:
    """Plan Tables 1 and 2 on the first data set and Tables 1 and 3 on the second that goes with it."""
    first = next((o.removeprefix("data=") for o in overrides if o.startswith("data=")), "digits")
    if first not in SECOND:
        raise UsageError(f"data={first}: all tables are of {' or '.join(SECOND)}; sweep thresholds or scales take any")
    if any(o.startswith("experiment=") for o in overrides):
        raise UsageError("experiment: one table's; `drrepro sweep all` takes data=digits or data=coco2017")
    rest = [o for o in overrides if not o.startswith("data=")]
    one, two = ([f"data={name}", *rest] for name in (first, SECOND[first]))
    return [
        thresholds(one, config_dir),
        scales(one, config_dir),
        datasets(two, config_dir),
        thresholds(two, config_dir),
    ]


def grid(overrides: list[str], config_dir: Path | None = None, name: str = "grid") -> tuple[Plan, list[Config]]:
    """Plan any product of axes, such as ``loss=dr,focal seed=0,1``."""
    plan, configs = _plan("grid", overrides, config_dir, lambda config: "")
    return replace(plan, name=name), configs


def nms(trained: list[Config], ious: list[float]) -> tuple[Plan, list[Config]]:
    """Plan one more evaluation of each trained run, at all NMS IoUs from one forward pass."""
    overrides = [f"evaluation.nms_ious={ious}"]
    configs = [for_evaluation(config, [f"weights=run:{run_id(config)}", *overrides]) for config in trained]
    cells = [Cell(run_id(c), c.loss.name, "", c.input.scale, c.seed, {}) for c in configs]
    return Plan("nms", "nms", trained[0].data.name, trained[0].data.paper, cells), configs


def _plan(kind: str, overrides: list[str], config_dir: Path | None, setting: Any) -> tuple[Plan, list[Config]]:
    given = {o.split("=")[0] for o in overrides[1:]}
    if "loss" in given and kind != "grid":  # the user's choice of losses wins over both
        overrides = overrides[1:]
    points = expand(overrides)
    varied = [i for i in range(len(overrides)) if len({point[i] for point in points}) > 1]
    for key in (overrides[i].split("=")[0] for i in varied):
        if kind != "grid" and key not in ("loss", "seed", *(["input.scale"] if kind == "scales" else [])):
            raise UsageError(f"{key}: a table takes one value of it; `drrepro sweep grid` takes several")
    configs: list[Config] = []
    cells: list[Cell] = []
    losses = {o for point in points for o in point if o.startswith("loss=")}
    parameters = {loss: {f"loss.{key}" for key in vars(compose([loss], config_dir).loss)} for loss in sorted(losses)}
    for point in points:
        own = _for_its_loss(point, parameters)
        config = compose(own, config_dir)
        axes = dict(point[i].split("=", 1) for i in varied if point[i] in own)
        cell = Cell(run_id(config), config.loss.name, setting(config), config.input.scale, config.seed, axes)
        if cell.run_id not in {c.run_id for c in cells}:
            configs.append(config)
            cells.append(cell)
    names = {config.data.name for config in configs}
    if len(names) > 1:
        raise UsageError(f"{' '.join(overrides)}: one sweep takes one data set, not {', '.join(sorted(names))}")
    return Plan(kind, kind, configs[0].data.name, configs[0].data.paper, cells), configs


def _for_its_loss(point: list[str], parameters: dict[str, set[str]]) -> list[str]:
    """Return the overrides of a run without those of parameters that only other losses of the sweep have."""
    own = next((parameters[override] for override in reversed(point) if override in parameters), set())
    others = set().union(*parameters.values()) - own
    return [override for override in point if override.split("=")[0] not in others]


def save_plan(plan: Plan, runs: Path) -> None:
    """Keep the plan; the last one of its kind and data set is what the report shows."""
    write_json(runs / "plans" / f"{plan.name}-{plan.data}.json", asdict(plan))


def load_plans(runs: Path) -> list[Plan]:
    """Return the plans kept under ``runs``. Raises UsageError for a damaged one."""
    return [read_plan(path) for path in sorted((runs / "plans").glob("*.json"))]


def read_plan(path: Path) -> Plan:
    """Return the plan kept in a file. Raises UsageError for a damaged one."""
    try:
        content = read_json(path)
        if wrong := misfit(content, SHAPE) or _stray_name(content):
            raise ValueError(wrong)
        return Plan(**{**content, "cells": [Cell(**cell) for cell in content["cells"]]})
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path}: not a plan of this version ({error}); remove it and sweep again") from None


def _stray_name(content: dict[str, Any]) -> str:
    """Return what is wrong with the names in a plan that files are called by, if anything."""
    if content["kind"] not in (*KINDS.values(), "nms", "grid"):
        return f"unknown kind {content['kind']!r}"
    names = [content["name"], content["data"], *(cell["run_id"] for cell in content["cells"])]
    return next((f"{name!r} is no name" for name in names if not re.fullmatch(r"\w[\w.-]*", name)), "")
