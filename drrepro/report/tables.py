"""The tables of studies, in their papers' layout, and of plans without a study.

A cell without a run record stays empty. With several seeds a cell is their mean, with its standard deviation; the AP
columns have 95% intervals where the runs kept their matches.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from drrepro.evaluation.bootstrap import RESAMPLES
from drrepro.evaluation.voc import VOC_METRICS
from drrepro.report.cells import Cell, Floats, estimate
from drrepro.report.claim_text import finding
from drrepro.report.claims import claims_of
from drrepro.report.evidence import Evidence, of_studies
from drrepro.report.table import Column, Table
from drrepro.runs.records import metrics_at
from drrepro.studies.study import THRESHOLD, Study
from drrepro.text import percent

NAMED = 10  # images left out, in a title
BESIDE = 3  # arms that have room beside each other; more have a row each
PLAIN = ("AP", "AP50", "AP75")  # of a table without a study


def build_tables(found: list[Evidence]) -> list[Table]:
    """Return the tables of studies, in their order."""
    return [build_table(evidence) for evidence in of_studies(found)]


def build_table(evidence: Evidence) -> Table:
    """Return the table of a study's plan; the paper's numbers only beside data that stand for some of its sets.

    ``plan.paper`` says which; without it there is ours alone.
    """
    study, columns = evidence.study, table_columns(evidence)
    cells = {s: {column: _cell(evidence, s, column) for column in columns} for s in table_settings(evidence)}
    if len(study.arms) > BESIDE:
        cells = _by_arm(study, cells)
        columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    paper = bool(evidence.plan.paper and study.published)
    findings = [finding(claim) for claim in claims_of(evidence) if claim.place == study.title]
    table = Table(study, evidence.plan.data, paper, "", columns, cells, findings)
    return replace(table, title=_title(table, evidence))


def table_settings(evidence: Evidence) -> list[str]:
    """Return the rows: the study's settings, and the score thresholds at which its runs were evaluated."""
    settings = list(evidence.study.settings)
    if evidence.study.axis != THRESHOLD:
        return settings
    configured = {t for r in evidence.records.values() for t in r["config"]["evaluation"]["score_thresholds"]}
    return [f"{t:g}" for t in sorted({*map(float, settings), *configured})]


def table_columns(evidence: Evidence) -> list[Column]:
    """Return the columns: each metric of each arm, and the gain of each candidate.

    Those of the VOC development kit stand there where some run has them.
    """
    study, rows = evidence.study, [row for record in evidence.records.values() for row in record["metrics"]]
    lacking = {metric for metric in VOC_METRICS if not any(metric in row for row in rows)}
    metrics = [metric for metric in study.metrics if metric not in lacking]
    arms = [Column(arm, metric) for arm in study.arms for metric in metrics]
    return [*arms, *gain_columns(study)]


def _by_arm(study: Study, cells: dict[str, dict[Column, Cell]]) -> dict[str, dict[Column, Cell]]:
    """Return the cells with a row for each arm at each setting; the baseline's gain over itself is empty."""
    gain = Column("", "AP", study.baseline)
    rows: dict[str, dict[Column, Cell]] = {}
    for setting, row in cells.items():
        for arm in study.arms:
            own = {replace(column, arm=""): cell for column, cell in row.items() if column.arm == arm}
            rows[f"{setting}, {study.arms[arm].name}"] = {**own, gain: own.get(gain, estimate([]))}
    return rows


def gain_columns(study: Study) -> list[Column]:
    """Return the gain in AP of each candidate over the baseline."""
    return [Column(candidate, "AP", study.baseline) for candidate in study.candidates]


def measured(evidence: Evidence, setting: str, column: Column) -> dict[int, Floats]:
    """Return by seed what a column has at a setting: see `Evidence.measured` and `Evidence.gains`."""
    if column.minus is not None:
        return evidence.gains(column.arm, setting)
    return evidence.measured(column.arm, setting, column.metric)


def published(study: Study, setting: str, column: Column) -> float | None:
    """Return the paper's number of a cell, None where it has none.

    A gain is the difference of its numbers, unless it says another: numbers of several papers have no difference.
    """
    ours = study.published_at(setting, column.arm, column.metric)
    if column.minus is None or ours is None:
        return ours
    said = study.published_at(setting, column.arm, f"{column.metric} - {column.minus}")
    if said is not None:
        return said
    theirs = study.published_at(setting, column.minus, column.metric)
    return None if theirs is None else ours - theirs


def _cell(evidence: Evidence, setting: str, column: Column) -> Cell:
    paper = published(evidence.study, setting, column) if evidence.plan.paper else None
    return estimate(list(measured(evidence, setting, column).values()), paper)


def _title(table: Table, evidence: Evidence) -> str:
    plan, study, records = evidence.plan, table.study, evidence.records.values()
    seeds = sorted({r["config"]["seed"] for r in records})
    trained = {r["config"]["schedule"]["steps"] for r in records}
    steps = sorted(trained - {0} or trained)  # runs without a step evaluate others again
    splits = sorted({r["config"]["evaluation"]["split"] for r in records})
    ours = f"ours: {plan.data}{'' if splits in ([], ['test']) else ' ' + '/'.join(splits)}"
    detail = f", {len(records)} of {len(plan.run_ids)} runs"
    if records:
        detail += f", {'/'.join(map(str, steps))} steps, seed {','.join(map(str, seeds))}"
    if "95%" in table.lines:
        spread = " and the spread over seeds" if "sd (n)" in table.lines else ""
        detail += f"; 95%: from {RESAMPLES} resamples of the test images{spread}"
    left_out = sorted({Path(path).name for r in records for path in r["data"]["dropped_images"]})
    if left_out:
        more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
        detail += f"; {len(left_out)} bad images left out: {', '.join(left_out[:NAMED])}{more}"
    paper = f"paper: {study.published.of}; " if plan.paper and study.published else ""
    return f"{study.title}, {study.what}{_values(evidence)} ({paper}{ours}{detail})"


def _values(evidence: Evidence) -> str:
    """Return the values that the settings stand for, where these are fractions of the configured one."""
    if not evidence.study.unit:
        return ""
    values = {point.setting: point.value for point in evidence.plan.points}
    shown = ", ".join(f"{values[s]:g}" for s in evidence.study.settings if values.get(s) is not None)
    return f", ours {shown} {evidence.study.unit}"


def plain_table(evidence: Evidence) -> pd.DataFrame:
    """Return the runs of a plan without a study, a row a measurement, per cent; empty where nothing was run."""
    rows = []
    for point in evidence.plan.points:
        record = evidence.records.get(point.run_id)
        head: dict[str, Any] = {"run": point.run_id, "loss": point.arm, **point.axes}
        found = [] if record is None else record["metrics"]
        if record is not None and not evidence.plan.every_row:
            evaluation = record["config"]["evaluation"]
            head["split"] = evaluation["split"]
            found = [metrics_at(record, evaluation["score_threshold"]) or {}]
        for row in found or [{}]:
            shown = {key: row.get(key) for key in ("nms_iou", "score_threshold")}
            rows.append({**head, **shown, **{m: percent(v) for m in PLAIN if (v := row.get(m)) is not None}})
    return pd.DataFrame(rows)
