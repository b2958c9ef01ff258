"""Tables 1-3 in the paper's layout: for each row the paper's numbers, ours, and the difference.

A cell without a run record stays empty. With several seeds a cell is their mean.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from drrepro.errors import UsageError
from drrepro.experiments.plan import Plan
from drrepro.experiments.records import Record, metrics_at, read_record
from drrepro.files import write_text

LOSSES = ("focal", "dr")
COCO = ("AP", "AP50", "AP75", "APs", "APm", "APl")
VOC = ("AP", "AP50", "AP75", "AP50_2007", "AP50_2010")
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
SCALES = ("400", "500", "600", "700", "800")
PAPER_DATA = {1: "COCO val2017", 2: "COCO test-dev", 3: "VOC2007 test"}

Ours = Callable[[str, str, str], float | None]  # loss, setting, metric -> per cent


@dataclass(frozen=True)
class Table:
    """A numbered table of one data set; ``frame`` has rows (setting, source) and columns (loss, metric), per cent."""

    number: int
    data: str
    title: str
    frame: pd.DataFrame
    findings: list[str]  # each claim of the paper that this table bears on, and whether it comes out


def build_tables(plans: list[Plan], runs: Path) -> list[Table]:
    """Return the tables of all plans, in the order of their numbers."""
    builders = {"thresholds": table1, "scales": table2, "datasets": table3}
    tables = [builders[plan.kind](plan, records_of(plan, runs)) for plan in plans if plan.kind in builders]
    return sorted(tables, key=lambda table: (table.number, table.data))


def records_of(plan: Plan, runs: Path) -> dict[str, Record]:
    """Return the records that exist, by run id."""
    found = ((cell.run_id, read_record(runs / cell.run_id)) for cell in plan.cells)
    return {run_id: record for run_id, record in found if record is not None}


def table1(plan: Plan, records: dict[str, Record]) -> Table:
    """Score thresholds, each record at each of them."""
    configured = {t for r in records.values() for t in r["config"]["evaluation"]["score_thresholds"]}
    settings = [f"{t:g}" for t in sorted({*THRESHOLDS, *configured})]

    def ours(loss: str, setting: str, metric: str) -> float | None:
        return _mean([(r, float(setting)) for r in _of(plan, records, loss)], metric)

    frame = _frame(1, settings, COCO, ours)
    return Table(1, plan.data, _title(1, "score thresholds", plan, records), frame, _threshold_findings(frame))


def table2(plan: Plan, records: dict[str, Record]) -> Table:
    """Input scales, each record at its loss's own threshold."""
    pixels = {cell.setting: cell.scale for cell in plan.cells}

    def ours(loss: str, setting: str, metric: str) -> float | None:
        return _mean([(r, own_threshold(r)) for r in _of(plan, records, loss, setting)], metric)

    frame = _frame(2, list(SCALES), COCO, ours)
    sizes = ", ".join(str(pixels[s]) for s in SCALES if s in pixels)
    title = _title(2, f"input scales, ours {sizes} px", plan, records)
    return Table(2, plan.data, title, frame, _scale_findings(frame))


def table3(plan: Plan, records: dict[str, Record]) -> Table:
    """The second data set, each record at its loss's own threshold."""
    setting = plan.cells[0].setting

    def ours(loss: str, setting: str, metric: str) -> float | None:
        return _mean([(r, own_threshold(r)) for r in _of(plan, records, loss, setting)], metric)

    metrics = VOC if any("AP50_2007" in row for r in records.values() for row in r["metrics"]) else VOC[:3]
    frame = _frame(3, [setting], metrics, ours)
    return Table(3, plan.data, _title(3, "another data set", plan, records), frame, _dataset_findings(frame))


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


def paper_numbers() -> pd.DataFrame:
    """Return the published numbers, indexed by table, loss and setting; per cent."""
    for path in (Path(__file__).parent / "paper.csv", Path(__file__).parents[2] / "results" / "paper.csv"):
        if path.is_file():
            return pd.read_csv(path, dtype={"setting": str}).set_index(["table", "loss", "setting"])
    raise UsageError("results/paper.csv: the published numbers are missing; install drrepro again")


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
    """Return the frame as text: one decimal, differences with their sign, empty where nothing was measured."""
    flat = _flat(frame)
    for column in flat.columns[2:]:
        flat[column] = [
            "" if pd.isna(v) else f"{v:+.1f}" if source == "difference" else f"{v:.1f}"
            for v, source in zip(flat[column], flat["source"], strict=True)
        ]
    return flat


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    flat = frame.copy()
    flat.columns = pd.Index([" ".join(column) for column in frame.columns])
    return flat.reset_index()


def _frame(number: int, settings: list[str], metrics: tuple[str, ...], ours: Ours) -> pd.DataFrame:
    published = paper_numbers()
    columns = pd.MultiIndex.from_product([LOSSES, metrics])
    margin = ("dr - focal", "AP")
    rows: dict[tuple[str, str], list[float | None]] = {}
    for setting in settings:
        paper = [
            float(published[metric].get((number, loss, setting), float("nan"))) if metric in published else None
            for loss, metric in columns
        ]
        found = [ours(loss, setting, metric) for loss, metric in columns]
        rows[setting, "paper"] = paper
        rows[setting, "ours"] = found
        rows[setting, "difference"] = [
            None if o is None or p is None else o - p for o, p in zip(found, paper, strict=True)
        ]
    index = pd.MultiIndex.from_tuples(rows, names=[{1: "threshold", 2: "scale", 3: "data"}[number], "source"])
    frame = pd.DataFrame(list(rows.values()), index=index, columns=columns, dtype=float)
    frame[margin] = frame["dr", "AP"] - frame["focal", "AP"]
    return frame


def own_threshold(record: Record) -> float:
    """Return the score threshold that belongs to the run's loss."""
    return float(record["config"]["evaluation"]["score_threshold"])


def _of(plan: Plan, records: dict[str, Record], loss: str, setting: str | None = None) -> list[Record]:
    cells = [c for c in plan.cells if c.loss == loss and setting in (None, c.setting)]
    return [records[c.run_id] for c in cells if c.run_id in records]


def _mean(measured: list[tuple[Record, float]], metric: str) -> float | None:
    """Return the mean of a metric over (record, threshold), per cent; None where it was not measured."""
    rows = [metrics_at(record, threshold) for record, threshold in measured]
    values = [row[metric] for row in rows if row is not None and row.get(metric) is not None]
    return 100 * sum(values) / len(values) if values else None


def _title(number: int, what: str, plan: Plan, records: dict[str, Record]) -> str:
    seeds = sorted({r["config"]["seed"] for r in records.values()})
    steps = sorted({r["config"]["schedule"]["steps"] for r in records.values()})
    split = {r["config"]["evaluation"]["split"] for r in records.values()} - {"test"}
    ours = f"ours: {plan.data}{' ' + '/'.join(sorted(split)) if split else ''}"
    detail = f", {len(records)} of {len(plan.cells)} runs"
    if records:
        detail += f", {'/'.join(map(str, steps))} steps, seed {','.join(map(str, seeds))}"
    return f"Table {number}, {what} (paper: {PAPER_DATA[number]}; {ours}{detail})"


def _ap(frame: pd.DataFrame, loss: str, source: str = "ours") -> pd.Series:
    """Return AP by setting."""
    return frame.xs(source, level="source")[loss, "AP"].dropna()


def _threshold_findings(frame: pd.DataFrame) -> list[str]:
    dr, focal = _ap(frame, "dr"), _ap(frame, "focal")
    if not {"0.05", "0.5"} <= set(dr.index) & set(focal.index):
        return ["Threshold claims: not run"]
    change = dr[[t for t in dr.index if 0.05 <= float(t) <= 0.5]]
    moved, lost = change.max() - change.min(), focal["0.05"] - focal["0.5"]
    return [
        _finding(
            moved <= 0.5, f"DR's AP moves by {moved:.1f} between thresholds 0.05 and 0.5 (paper 0.2; at most 0.5)"
        ),
        _finding(lost >= 3, f"focal's AP falls by {lost:.1f} from threshold 0.05 to 0.5 (paper 7.7; at least 3)"),
    ]


def _scale_findings(frame: pd.DataFrame) -> list[str]:
    gain = (_ap(frame, "dr") - _ap(frame, "focal")).dropna()
    if gain.empty:
        return ["Scale claims: not run"]
    above = int((gain > 0).sum())
    complete = len(gain) == len(frame.index.unique(0))
    text = (
        f"DR is above focal at {above} of {len(gain)} scales, by {gain.mean():+.1f} AP on average (paper: 5 of 5, +1.9)"
    )
    return [_finding(above == len(gain), text) if complete else f"not complete: {text}"]


def _dataset_findings(frame: pd.DataFrame) -> list[str]:
    gain = (_ap(frame, "dr") - _ap(frame, "focal")).dropna()
    if gain.empty:
        return ["Data set claim: not run"]
    text = f"DR is above focal on another data set with the same parameters, by {gain.iloc[0]:+.1f} AP (paper +1.7)"
    return [_finding(gain.iloc[0] > 0, text)]


def _finding(holds: bool, text: str) -> str:
    return f"{'comes out' if holds else 'DOES NOT COME OUT'}: {text}"
