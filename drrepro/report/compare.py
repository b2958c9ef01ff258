"""How one reproduction compares with another, cell by cell of the numbered tables."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from drrepro.report.cells import estimate
from drrepro.report.evidence import Evidence, of_studies
from drrepro.report.table import Column
from drrepro.report.tables import gain_columns, measured, table_settings
from drrepro.report.written import read_kept
from drrepro.text import percent


def compare(results: Path, against: Path) -> pd.DataFrame:
    """Return a row for each AP, and difference of AP, that both folders have a table for, per cent.

    Columns: table, data, setting, column, seeds (those that both have, or where there are none each its own),
    same_data, ours, theirs (means over these seeds), difference, low and high (of theirs over all its seeds, 95%), and
    verdict: identical, inside or outside that interval, no interval, or not run.
    Raises UsageError where a folder keeps no records.
    """
    known = {(e.study.name, e.plan.data): e for e in of_studies(read_kept(against))}
    rows = []
    for this in of_studies(read_kept(results)):
        other = known.get((this.study.name, this.plan.data))
        if other is not None:
            columns = [
                *(Column(arm, "AP") for arm in this.study.arms),
                *gain_columns(this.study),
            ]  # that have intervals
            rows += [_row(this, other, setting, column) for setting in table_settings(this) for column in columns]
    return pd.DataFrame(rows)


def summary(frame: pd.DataFrame, against: Path) -> str:
    """Say in one line how many cells have which verdict."""
    if frame.empty:
        return f"{against} has no table of these data: nothing to compare with"
    counts = Counter(frame["verdict"])
    words = ("identical", "inside", "outside", "no interval", "not run")
    parts = [f"{counts[word]} {word}" + " the 95% interval" * (word in words[1:3]) for word in words if counts[word]]
    same = {True: "the same data", False: "other data"}
    data = " and ".join(same[known] for known in sorted(set(frame["same_data"]), reverse=True))
    return f"{len(frame)} cells beside {against}: {', '.join(parts)}; {data}"


def _row(this: Evidence, other: Evidence, setting: str, column: Column) -> dict[str, object]:
    ours, theirs = (measured(evidence, setting, column) for evidence in (this, other))
    shared = sorted(ours.keys() & theirs.keys())
    here, there = (
        _mean([values[0] for seed, values in m.items() if seed in shared or not shared]) for m in (ours, theirs)
    )
    published = estimate(list(theirs.values())).percent()
    return {
        "table": this.study.number or this.study.name,
        "data": this.plan.data,
        "setting": setting,
        "column": str(column),
        "seeds": ",".join(map(str, shared)) or "others",
        "same_data": _data(this) == _data(other),
        "ours": here,
        "theirs": there,
        "difference": here - there,
        "low": published.low,
        "high": published.high,
        "verdict": _verdict(here, there, published.low, published.high),
    }


def _verdict(ours: float, theirs: float, low: float, high: float) -> str:
    if np.isnan(ours) or np.isnan(theirs):
        return "not run"
    if ours == theirs:
        return "identical"
    if np.isnan(low):
        return "no interval"
    return "inside" if low <= ours <= high else "outside"


def _mean(values: list[float]) -> float:
    return percent(float(np.mean(values))) if values else float("nan")


def _data(evidence: Evidence) -> set[str | None]:
    return {record["data"]["sha256"] for record in evidence.records.values()}
