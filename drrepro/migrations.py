"""Records, plans and configurations of earlier versions, brought to this one: a function a version."""

from collections.abc import Callable
from typing import Any

from drrepro.identity import FROZEN
from drrepro.shape import EACH, misfit

SCHEMA = 3  # of a record
PLAN_SCHEMA = 2  # of a plan
Content = dict[str, Any]

POINT_1 = {**dict.fromkeys(("run_id", "loss", "setting"), str), "scale": int, "seed": int, "axes": {EACH: str}}
PLAN_1 = {**dict.fromkeys(("kind", "name", "data"), str), "paper": str | None, "cells": [POINT_1]}


def migrate_config(config: Content) -> Content:
    """Return a configuration without the parameters of the other losses, which it had in version 1."""
    loss = config.get("loss")
    if not isinstance(loss, dict) or loss.get("name") not in FROZEN["losses"]:
        return config
    others = {key for name, keys in FROZEN["losses"].items() if name != loss["name"] for key in keys}
    return {**config, "loss": {key: value for key, value in loss.items() if key not in others}}


def _from_1(record: Content) -> Content:
    """No image was left out, and every configuration had the parameters of both losses."""
    data = {"dropped_images": {}, **record["data"]}
    return {**record, "schema": 2, "config": migrate_config(record["config"]), "data": data}


def _from_2(record: Content) -> Content:
    """Densities were of the run's own matcher alone, null where there were none, and without a ROC AUC."""
    own, matcher = record["densities"], record["config"]["matcher"]
    head = {key: matcher.get(key) for key in ("fg_iou", "bg_iou")}
    return {**record, "schema": 3, "densities": [{**head, **own, "auc": None}] if isinstance(own, dict) else []}


MIGRATIONS: dict[int, Callable[[Content], Content]] = {1: _from_1, 2: _from_2}


def migrate(record: Content) -> Content:
    """Return a record of schema 1 or later as one of this version."""
    while record["schema"] < SCHEMA:
        record = MIGRATIONS[record["schema"]](record)
    return record


def migrate_plan(plan: Any, load_study: Callable[[str], Content]) -> Content:
    """Return a plan of schema 1 or later as one of this version. Raises ValueError for what is none.

    Version 1 had the name of a table's study alone, as its kind, or grid or nms, and runs by their loss.
    """
    version = plan.get("schema", 1) if isinstance(plan, dict) else None
    if version == PLAN_SCHEMA:
        return {key: value for key, value in plan.items() if key != "schema"}
    if version != 1:
        raise ValueError(f"schema {version}, this version reads 1 to {PLAN_SCHEMA}")
    if wrong := misfit(plan, PLAN_1):
        raise ValueError(wrong)
    kind = plan["kind"]
    if kind not in ("thresholds", "scales", "datasets", "nms", "grid"):
        raise ValueError(f"unknown kind {kind!r}")
    study = None if kind in ("grid", "nms") else load_study(kind)
    if study and kind == "datasets":
        study["settings"] = {cell["setting"]: None for cell in plan["cells"]}
    points = [
        {"run_id": c["run_id"], "arm": c["loss"], "setting": c["setting"], "seed": c["seed"]}
        | {"value": c["scale"] if kind == "scales" else None, "axes": c["axes"]}
        for c in plan["cells"]
    ]
    head = {key: plan[key] for key in ("name", "data", "paper")}
    return {**head, "study": study, "points": points, "every_row": kind == "nms"}
