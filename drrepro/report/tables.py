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
from drrepro.experiments.plan import Plan
from drrepro.experiments.records import Record, metrics_at
from drrepro.files import write_text
from drrepro.report import paper
from drrepro.report.claims import average_claim, dataset_claim, finding, scale_claim, threshold_claim
from drrepro.report.evidence import LOSSES, Estimate, Evidence, estimate, gather, records_of

COCO = ("AP", "AP50", "AP75", "APs", "APm", "APl")
VOC = ("AP", "AP50", "AP75", "AP50_2007", "AP50_2010")
GAIN = ("dr - focal", "AP")

Column = tuple[str, str]  # loss, metric
Place = Callable[[str], dict[str, Any]]  # setting -> what `Evidence.measured` is to take


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


def build_tables(
    plans: list[Plan], runs: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Table]:
    """Return the tables of all plans, in the order of their numbers; ``progress`` gets (runs resampled, all)."""
    tables = [build_table(evidence) for evidence in gather(plans, runs, progress)]
    return sorted(tables, key=lambda table: (table.number, table.data))


def build_table(evidence: Evidence) -> Table:
    """Return the table of a plan of thresholds, scales or datasets."""
    return {"thresholds": table1, "scales": table2, "datasets": table3}[evidence.plan.kind](evidence)


def table1(evidence: Evidence) -> Table:
    """Score thresholds, each record at each of them."""
    configured = {t for r in evidence.records.values() for t in r["config"]["evaluation"]["score_thresholds"]}
    settings = [f"{t:g}" for t in sorted({*paper.THRESHOLDS, *configured})]
    frame = _frame(1, settings, COCO, evidence, lambda setting: {"threshold": float(setting)})
    findings = [finding(threshold_claim(evidence))]
    return Table(1, evidence.plan.data, _title(1, "score thresholds", evidence, frame), frame, findings)


def table2(evidence: Evidence) -> Table:
    """Input scales, each record at its loss's own threshold."""
    pixels = {cell.setting: cell.scale for cell in evidence.plan.cells}
    frame = _frame(2, list(paper.SCALES), COCO, evidence, lambda setting: {"setting": setting})
    sizes = ", ".join(str(pixels[s]) for s in paper.SCALES if s in pixels)
    title = _title(2, f"input scales, ours {sizes} px", evidence, frame)
    findings = [finding(scale_claim(evidence)), finding(average_claim(evidence))]
    return Table(2, evidence.plan.data, title, frame, findings)


def table3(evidence: Evidence) -> Table:
    """The second data set, each record at its loss's own threshold."""
    setting, records = evidence.plan.cells[0].setting, evidence.records.values()
    metrics = VOC if any("AP50_2007" in row for r in records for row in r["metrics"]) else VOC[:3]
    frame = _frame(3, [setting], metrics, evidence, lambda setting: {"setting": setting})
    title = _title(3, "another data set", evidence, frame)
    return Table(3, evidence.plan.data, title, frame, [finding(dataset_claim(evidence))])


def plain_table(plan: Plan, records: dict[str, Record]) -> pd.DataFrame:
    """Return the runs of a grid or an NMS sweep, a row a measurement, per cent; empty where nothing was run."""
    rows = []
    for cell in plan.cells:
        record = records.get(cell.run_id)
        head = {"run": cell.run_id, "loss": cell.loss, **cell.axes}
        measured = [] if record is None else record["metrics"]
        if plan.kind == "grid" and record is not None:
            evaluation = record["config"]["evaluation"]
            head["split"] = evaluation["split"]
            measured = [metrics_at(record, evaluation["score_threshold"])]
        for row in measured or [{}]:
            shown = {key: row.get(key) for key in ("nms_iou", "score_threshold")}
            rows.append({**head, **shown, **{m: 100 * row[m] for m in COCO[:3] if row.get(m) is not None}})
    return pd.DataFrame(rows)


def write_tables(tables: list[Table], results: Path) -> list[Path]:
    """Write each table as csv, md and tex under results/<data>/; return the paths."""
    paths = []
    for table in tables:
        stem = results / table.data / f"table{table.number}"
        text = display(table.frame)
        note = "\n".join(["", *(f"- {finding}" for finding in table.findings)])
        write_text(stem.with_suffix(".csv"), _flat(table.frame).to_csv(index=False, float_format="%.4f"))
        markdown = text.to_markdown(index=False, disable_numparse=True)  # numparse would drop the zero of 35.0
        write_text(stem.with_suffix(".md"), f"{table.title}\n\n{markdown}\n{note}\n")
        latex = text.to_latex(index=False, escape=True, caption=table.title, label=f"tab:{table.data}{table.number}")
        write_text(stem.with_suffix(".tex"), latex)
        paths += [stem.with_suffix(suffix) for suffix in (".csv", ".md", ".tex")]
    return paths


def copy_records(plans: list[Plan], runs: Path, results: Path) -> list[Path]:
    """Write the record behind each number to results/<data>/records/<run id>.json; return the paths."""
    paths = []
    for plan in plans:
        for run_id, record in records_of(plan, runs).items():
            paths.append(results / plan.data / "records" / f"{run_id}.json")
            write_text(paths[-1], json.dumps(record) + "\n")
    return sorted(set(paths))


def run_table(plans: list[Plan], runs: Path, data: str) -> pd.DataFrame:
    """Return what each run on a data set took, and where."""
    records = {name: r for plan in plans if plan.data == data for name, r in records_of(plan, runs).items()}
    return pd.DataFrame(
        [
            {
                "run": name,
                **{key: record["cost"][key] for key in ("train_seconds", "steps_per_second", "peak_memory_mb")},
                "threads": record["machine"]["threads"],
                "cpu": record["machine"]["cpu"],
                "torch": record["versions"]["torch"],
                "commit": (record["commit"] or "")[:8] + ("+" if record["dirty"] else ""),
                "finished": record["finished"],
            }
            for name, record in sorted(records.items())
        ]
    )


def as_json(table: Table) -> dict[str, Any]:
    """Return a table as plain data."""
    rows = json.loads(_flat(table.frame).to_json(orient="records"))
    return {"table": table.number, "data": table.data, "title": table.title, "rows": rows, "findings": table.findings}


def write_plain(name: str, data: str, frame: pd.DataFrame, results: Path) -> list[Path]:
    """Write any frame as csv and md under results/<data>/."""
    stem = results / data / name
    write_text(stem.with_suffix(".csv"), frame.to_csv(index=False, float_format="%.4f"))
    write_text(stem.with_suffix(".md"), frame.to_markdown(index=False, floatfmt=".4g") + "\n")
    return [stem.with_suffix(".csv"), stem.with_suffix(".md")]


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


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    flat = frame.copy()
    flat.columns = pd.Index(_names(frame))
    return flat.reset_index()


def _frame(
    number: int, settings: list[str], metrics: tuple[str, ...], evidence: Evidence, place: Place
) -> pd.DataFrame:
    columns: list[Column] = [*((loss, metric) for loss in LOSSES for metric in metrics), GAIN]
    rows: dict[tuple[str, str], list[float]] = {}
    for setting in settings:
        own = [_estimate(evidence, column, place(setting)) for column in columns]
        published = [_published(number, setting, column) for column in columns]
        rows[setting, "paper"] = published
        rows[setting, "ours"] = [e.value for e in own]
        rows[setting, "sd"] = [e.sd for e in own]
        rows[setting, "n"] = [e.n if e.n else float("nan") for e in own]
        for end in ("low", "high"):  # of AP alone: the other metrics are not resampled
            rows[setting, f"95% {end}"] = [getattr(e, end) if "images" in e.basis else float("nan") for e in own]
        rows[setting, "difference"] = [e.value - p for e, p in zip(own, published, strict=True)]
    index = pd.MultiIndex.from_tuples(rows, names=[{1: "threshold", 2: "scale", 3: "data"}[number], "source"])
    frame = pd.DataFrame(list(rows.values()), index=index, columns=pd.MultiIndex.from_tuples(columns), dtype=float)
    return frame.drop(index=_empty(frame), level="source")


def _empty(frame: pd.DataFrame) -> list[str]:
    """Return the sources that say nothing anywhere in the table: no spread of single seeds, no interval."""
    silent = [["sd", "n"], ["95% low", "95% high"]]
    return [name for group in silent if frame.xs(group[0], level="source").isna().to_numpy().all() for name in group]


def _estimate(evidence: Evidence, column: Column, place: dict[str, Any]) -> Estimate:
    measured = evidence.gains(**place) if column == GAIN else evidence.measured(column[0], metric=column[1], **place)
    return estimate(list(measured.values()))


def _published(number: int, setting: str, column: Column) -> float:
    numbers = paper.paper_numbers()
    if column == GAIN:
        return _published(number, setting, ("dr", "AP")) - _published(number, setting, ("focal", "AP"))
    loss, metric = column
    return float(numbers[metric].get((number, loss, setting), float("nan"))) if metric in numbers else float("nan")


def _title(number: int, what: str, evidence: Evidence, frame: pd.DataFrame) -> str:
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
    return f"Table {number}, {what} (paper: {paper.DATA[number]}; {ours}{detail})"
