"""A plan: the runs of a table. It is kept under runs/plans/, and the report reads it from there."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drrepro.errors import UsageError
from drrepro.files import read_json, write_json
from drrepro.migrations import PLAN_SCHEMA, migrate_plan
from drrepro.shape import EACH, misfit
from drrepro.studies.study import Study, from_dict, load_study


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

    @property
    def run_ids(self) -> list[str]:
        """The runs, each once."""
        return list(dict.fromkeys(point.run_id for point in self.points))


POINT = {"run_id": str, "arm": str, "setting": str, "seed": int, "value": float | None, "axes": {EACH: str}}
SHAPE = {"name": str, "study": ({}, type(None)), "data": str, "paper": str | None, "points": [POINT], "every_row": bool}


def as_dict(plan: Plan) -> dict[str, Any]:
    """Return the plan as plain data."""
    return {"schema": PLAN_SCHEMA, **asdict(plan)}


def save_plan(plan: Plan, runs: Path) -> None:
    """Keep the plan; the last one of its name and data set is what the report shows.

    Raises UsageError for names that no file can have.
    """
    if stray := _stray_name(as_dict(plan)):
        raise UsageError(f"{stray}: takes letters, digits and ._-")
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
