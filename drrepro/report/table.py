"""A table as cells, and at its edge as a frame and as text: for each row the paper's numbers, ours, the difference."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from drrepro.report.cells import Cell, difference_text, interval_text, spread_text
from drrepro.studies.study import Study
from drrepro.text import number_text

# What each line of a setting says of a cell in per cent, and the columns of csv that it takes.
LINES: dict[str, Callable[[Cell], str]] = {
    "paper": lambda cell: number_text(cell.published),
    "ours": lambda cell: number_text(cell.value),
    "sd (n)": spread_text,
    "95%": interval_text,
    "difference": difference_text,
}


@dataclass(frozen=True)
class Column:
    """A metric of an arm, or how much it is above that of another arm; ``arm`` is empty where each has a row."""

    arm: str
    metric: str
    minus: str | None = None

    @property
    def head(self) -> str:
        """The arm or the two arms."""
        if self.minus is None:
            return self.arm
        return f"{self.arm} - {self.minus}" if self.arm else f"gain over {self.minus}"

    def __str__(self) -> str:
        return f"{self.head} {self.metric}".strip()


@dataclass(frozen=True)
class Table:
    """The table of a study on a data set: by setting and column the cells, as fractions."""

    study: Study
    data: str
    paper: bool  # whether published numbers stand beside ours
    title: str
    columns: list[Column]
    cells: dict[str, dict[Column, Cell]]
    findings: list[str]  # each claim that this table bears on, with its verdict

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Per cent, in rows (setting, source) and columns (arm or arms, metric).

        Sources: paper, ours, difference; sd and n where there are several seeds, 95% low and 95% high where runs kept
        their matches.
        """
        rows: dict[tuple[str, str], list[float]] = {}
        for setting, own in self.cells.items():
            sources = [_sources(cell.percent()) for cell in own.values()]
            rows |= {(setting, name): [one[name] for one in sources] for name in sources[0]}
        index = pd.MultiIndex.from_tuples(rows, names=[self.study.head, "source"])
        columns = pd.MultiIndex.from_tuples([(column.head, column.metric) for column in self.columns])
        frame = pd.DataFrame(list(rows.values()), index=index, columns=columns, dtype=float)
        silent = [] if self.paper else ["paper", "difference"]
        for group in (["sd", "n"], ["95% low", "95% high"]):  # no spread of single seeds, no interval
            silent += group if frame.xs(group[0], level="source").isna().to_numpy().all() else []
        return frame.drop(index=silent, level="source")

    @property
    def lines(self) -> list[str]:
        """Those of LINES that say something somewhere in the table."""
        known = set(self.frame.index.unique("source"))
        named = {"sd (n)": "sd", "95%": "95% low"}
        return [line for line in LINES if named.get(line, line) in known]


def _sources(cell: Cell) -> dict[str, float]:
    """Return what is known of a cell in per cent, by the names in csv; the other metrics are not resampled."""
    nan = float("nan")
    low, high = (cell.low, cell.high) if "images" in cell.basis else (nan, nan)
    return {
        "paper": nan if cell.published is None else cell.published,
        "ours": cell.value,
        "sd": cell.sd,
        "n": cell.n or nan,
        "95% low": low,
        "95% high": high,
        "difference": cell.difference,
    }


def as_json(table: Table) -> dict[str, Any]:
    """Return a table as plain data."""
    rows = json.loads(flat(table.frame).to_json(orient="records"))
    name = table.study.name if table.study.number is None else table.study.number
    return {"table": name, "data": table.data, "title": table.title, "rows": rows, "findings": table.findings}


def line_text(line: str, cell: Cell) -> str:
    """Return what a line says of a cell; of the metrics that are not resampled there is no interval."""
    return "" if line == "95%" and "images" not in cell.basis else LINES[line](cell.percent())


def display(table: Table) -> pd.DataFrame:
    """Return a table as text: one decimal, differences with their sign, empty where nothing was measured."""
    rows = [
        [setting, line, *(line_text(line, cell) for cell in own.values())]
        for setting, own in table.cells.items()
        for line in table.lines
    ]
    return pd.DataFrame(rows, columns=[table.study.head, "source", *map(str, table.columns)])


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with one header line and the setting and source as columns."""
    flat = frame.copy()
    flat.columns = pd.Index([" ".join(column).strip() for column in frame.columns])
    return flat.reset_index()
