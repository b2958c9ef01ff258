"""Tables 1-3 in the paper's layout: for each row the paper's numbers, ours, and the difference.

A cell without a run record stays empty. With several seeds a cell is their mean, with its standard deviation; the AP
columns have 95% intervals where the runs kept their matches.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from drrepro.evaluation.bootstrap import RESAMPLES
from drrepro.experiments.records import metrics_at
from drrepro.report import paper
from drrepro.report.claims import Claim, average_claim, dataset_claim, finding, scale_claim, threshold_claim
from drrepro.report.evidence import LOSSES, Evidence, Floats, estimate, numbered

COCO = ("AP", "AP50", "AP75", "APs", "APm", "APl")
VOC = ("AP", "AP50", "AP75", "AP50_2007", "AP50_2010")
NAMED = 10  # images left out, in a title
GAIN = ("dr - focal", "AP")

Column = tuple[str, str]  # loss, metric
Place = Callable[[str], dict[str, Any]]  # setting -> what `Evidence.measured` is to take


@dataclass(frozen=True)
class Layout:
    """What a numbered table is made of: its settings, metrics, where each is measured, and the claims it bears on."""

    number: int
    axis: str  # what the settings are
    what: str  # in the title
    settings: list[str]
    metrics: tuple[str, ...]
    place: Place
    claims: list[Callable[[Evidence], Claim]]


@dataclass(frozen=True)
class Table:
    """A numbered table of one data set, per cent; ``frame`` has rows (setting, source) and columns (loss, metric).

    Sources: paper, ours, difference; sd and n where there are several seeds, 95% low and 95% high where runs kept
    their matches.
    """

    number: int
    data: str
    title: str
    frame: pd.DataFrame
    findings: list[str]  # each claim of the paper that this table bears on, with its verdict


def build_tables(found: list[Evidence]) -> list[Table]:
    """Return the numbered tables, in their order."""
    return [build_table(evidence) for evidence in numbered(found)]


def build_table(evidence: Evidence) -> Table:
    """Return the table of a plan of thresholds, scales or datasets; the paper's lines only beside what stands for it.

    ``plan.paper`` says so; without it there is ours alone.
    """
    layout = layout_of(evidence)
    frame = _frame(layout, evidence)
    findings = [finding(claim(evidence)) for claim in layout.claims]
    return Table(layout.number, evidence.plan.data, _title(layout, evidence, frame), frame, findings)


def layout_of(evidence: Evidence) -> Layout:
    """Return what the table of a plan is made of."""
    return {"thresholds": _table1, "scales": _table2, "datasets": _table3}[evidence.plan.kind](evidence)


def _table1(evidence: Evidence) -> Layout:
    """Score thresholds, each record at each of them."""
    configured = {t for r in evidence.records.values() for t in r["config"]["evaluation"]["score_thresholds"]}
    settings = [f"{t:g}" for t in sorted({*paper.THRESHOLDS, *configured})]
    return Layout(1, "threshold", "score thresholds", settings, COCO, _at_threshold, [threshold_claim])


def _table2(evidence: Evidence) -> Layout:
    """Input scales, each record at its loss's own threshold."""
    pixels = {cell.setting: cell.scale for cell in evidence.plan.cells}
    sizes = ", ".join(str(pixels[s]) for s in paper.SCALES if s in pixels)
    what = f"input scales, ours {sizes} px"
    return Layout(2, "scale", what, list(paper.SCALES), COCO, _at_setting, [scale_claim, average_claim])


def _table3(evidence: Evidence) -> Layout:
    """The second data set, each record at its loss's own threshold."""
    metrics = VOC if any("AP50_2007" in row for r in evidence.records.values() for row in r["metrics"]) else VOC[:3]
    return Layout(
        3, "data", "another data set", [evidence.plan.cells[0].setting], metrics, _at_setting, [dataset_claim]
    )


def _at_threshold(setting: str) -> dict[str, Any]:
    return {"threshold": float(setting)}


def _at_setting(setting: str) -> dict[str, Any]:
    return {"setting": setting}


def measured(evidence: Evidence, column: Column, place: dict[str, Any]) -> dict[int, Floats]:
    """Return by seed what a column of a table has at a place: see `Evidence.measured` and `Evidence.gains`."""
    return evidence.gains(**place) if column == GAIN else evidence.measured(column[0], metric=column[1], **place)


def plain_table(evidence: Evidence) -> pd.DataFrame:
    """Return the runs of a grid or an NMS sweep, a row a measurement, per cent; empty where nothing was run."""
    rows = []
    for cell in evidence.plan.cells:
        record = evidence.records.get(cell.run_id)
        head = {"run": cell.run_id, "loss": cell.loss, **cell.axes}
        measured = [] if record is None else record["metrics"]
        if evidence.plan.kind == "grid" and record is not None:
            evaluation = record["config"]["evaluation"]
            head["split"] = evaluation["split"]
            measured = [metrics_at(record, evaluation["score_threshold"])]
        for row in measured or [{}]:
            shown = {key: row.get(key) for key in ("nms_iou", "score_threshold")}
            rows.append({**head, **shown, **{m: 100 * row[m] for m in COCO[:3] if row.get(m) is not None}})
    return pd.DataFrame(rows)


def as_json(table: Table) -> dict[str, Any]:
    """Return a table as plain data."""
    rows = json.loads(flat(table.frame).to_json(orient="records"))
    return {"table": table.number, "data": table.data, "title": table.title, "rows": rows, "findings": table.findings}


def display(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame as text: one decimal, differences with their sign, empty where nothing was measured.

    Standard deviation and n share a row, as do the ends of an interval.
    """
    name = str(frame.index.names[0])
    rows = []
    for setting in frame.index.unique(0):
        own = frame.loc[setting]
        for source in own.index:
            if (text := _row_text(own, source)) is not None:
                rows.append([setting, {"sd": "sd (n)", "95% low": "95%"}.get(source, source), *text])
    return pd.DataFrame(rows, columns=[name, "source", *_names(frame)])


def _row_text(own: pd.DataFrame, source: str) -> list[str] | None:
    """Return the cells of a source, or None where another shows them."""
    if source in ("n", "95% high"):
        return None
    forms = {"sd": "{sd:.1f} ({n:.0f})", "95% low": "{95% low:.1f}..{95% high:.1f}", "difference": "{difference:+.1f}"}
    form = forms.get(source, f"{{{source}:.1f}}")
    cells = [{str(name): float(value) for name, value in own[column].items()} for column in own.columns]
    return ["" if math.isnan(cell[source]) else form.format(**cell) for cell in cells]


def _names(frame: pd.DataFrame) -> list[str]:
    return [" ".join(column) for column in frame.columns]


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with one row of heads, such as "dr AP", and its index as columns."""
    flat = frame.copy()
    flat.columns = pd.Index(_names(frame))
    return flat.reset_index()


def _frame(layout: Layout, evidence: Evidence) -> pd.DataFrame:
    columns: list[Column] = [*((loss, metric) for loss in LOSSES for metric in layout.metrics), GAIN]
    rows: dict[tuple[str, str], list[float]] = {}
    for setting in layout.settings:
        own = [estimate(list(measured(evidence, column, layout.place(setting)).values())) for column in columns]
        published = [_published(layout.number, setting, column) for column in columns]
        if evidence.plan.paper:
            rows[setting, "paper"] = published
        rows[setting, "ours"] = [e.value for e in own]
        rows[setting, "sd"] = [e.sd for e in own]
        rows[setting, "n"] = [e.n if e.n else float("nan") for e in own]
        for end in ("low", "high"):  # of AP alone: the other metrics are not resampled
            rows[setting, f"95% {end}"] = [getattr(e, end) if "images" in e.basis else float("nan") for e in own]
        if evidence.plan.paper:
            rows[setting, "difference"] = [e.value - p for e, p in zip(own, published, strict=True)]
    index = pd.MultiIndex.from_tuples(rows, names=[layout.axis, "source"])
    frame = pd.DataFrame(list(rows.values()), index=index, columns=pd.MultiIndex.from_tuples(columns), dtype=float)
    return frame.drop(index=_empty(frame), level="source")


def _empty(frame: pd.DataFrame) -> list[str]:
    """Return the sources that say nothing anywhere in the table: no spread of single seeds, no interval."""
    silent = [["sd", "n"], ["95% low", "95% high"]]
    return [name for group in silent if frame.xs(group[0], level="source").isna().to_numpy().all() for name in group]


def _published(number: int, setting: str, column: Column) -> float:
    numbers = paper.paper_numbers()
    if column == GAIN:
        return _published(number, setting, ("dr", "AP")) - _published(number, setting, ("focal", "AP"))
    loss, metric = column
    row = setting if number < 3 else paper.SETS[3]
    return float(numbers[metric].get((number, loss, row), float("nan"))) if metric in numbers else float("nan")


def _title(layout: Layout, evidence: Evidence, frame: pd.DataFrame) -> str:
    plan, records = evidence.plan, evidence.records.values()
    seeds = sorted({r["config"]["seed"] for r in records})
    steps = sorted({r["config"]["schedule"]["steps"] for r in records})
    split = {r["config"]["evaluation"]["split"] for r in records} - {"test"}
    ours = f"ours: {plan.data}{' ' + '/'.join(sorted(split)) if split else ''}"
    detail = f", {len(records)} of {len(plan.cells)} runs"
    if records:
        detail += f", {'/'.join(map(str, steps))} steps, seed {','.join(map(str, seeds))}"
    if "95% low" in frame.index.unique("source"):
        spread = " and the spread over seeds" if "sd" in frame.index.unique("source") else ""
        detail += f"; 95%: from {RESAMPLES} resamples of the test images{spread}"
    left_out = sorted({Path(path).name for r in records for path in r["data"].get("dropped_images", {})})
    if left_out:
        more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
        detail += f"; {len(left_out)} bad images left out: {', '.join(left_out[:NAMED])}{more}"
    published = f"paper: {paper.DATA[layout.number]}; " if plan.paper else ""
    return f"Table {layout.number}, {layout.what} ({published}{ours}{detail})"
