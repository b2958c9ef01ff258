"""report.html: all that was found, in one file to read; made from what the runs have kept, nothing is run."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from drrepro.data.published import FETCHED
from drrepro.files import write_text
from drrepro.progress import Report
from drrepro.report import examples, questions
from drrepro.report.cells import Cell
from drrepro.report.claim import FAILS, HOLDS, NOT_RUN, RULE, UNDECIDED, Claim
from drrepro.report.claim_text import claim_table
from drrepro.report.claims import build_claims
from drrepro.report.evidence import Evidence, gather, of_studies, own_threshold
from drrepro.report.figures import plan_figures
from drrepro.report.intervals import claim_intervals
from drrepro.report.page_figures import THEME, svg
from drrepro.report.repeat import run_command, sweep_command
from drrepro.report.table import Table, line_text
from drrepro.report.tables import build_table
from drrepro.runs.records import Record, metrics_at
from drrepro.studies.plan import Plan
from drrepro.studies.study import THRESHOLD
from drrepro.text import number_text, percent_text

NAME = "report.html"
SHORT = ("paper", "ours", "95%", "difference")  # the lines of a table of AP alone
CAPTIONS = {
    "ap_threshold": "AP against score threshold. Dots: the thresholds of Table 1; bands: the range over seeds.",
    "ap_scale": "AP against input scale, mean and range over seeds.",
    "ap_axis": "AP against what the study varies, mean and range over seeds.",
    "gain_axis": "Gain in AP over the baseline against what the study varies, with its 95% interval.",
    "overfitting": "AP at the higher score threshold minus AP at the lower against epochs, with its 95% interval.",
    "waterfall": "What each change adds to AP, on top of those before it, with its 95% interval.",
    "figure1": "Figure 1: densities of foreground and background scores, the background's divided by 10 in (b); lines: "
    "what is background by the matcher of each loss, for both.",
    "training": "Classification and box loss in training. The classification losses do not compare.",
}


def write_report(plans: list[Plan], runs: Path, data_folder: Path, results: Path, report: Report) -> Path:
    """Write report.html and return its path. Raises UsageError for a damaged record."""
    found = of_studies(gather(plans, runs, lambda done, total: report("resample test images", done, total, {})))
    claims = build_claims(found)
    records = {name: record for evidence in found for name, record in evidence.records.items()}
    tables = [_table(build_table(evidence), evidence) for evidence in found]
    figures = _figures(claims, found, runs, report)
    page = _template().render(
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        claims=[(claim, claim_table([claim]).drop(columns=["claim", "data", "verdict"])) for claim in claims],
        verdicts=_verdicts(claims),
        rule=RULE,
        questions=questions.answered(found, claims, tables, figures["sets"], results),
        tables=tables,
        figures=figures,
        examples=_examples(found, runs, data_folder, report),
        example_rule=examples.RULE,
        summary=_summary(records),
        sets=[_data_set(data, found) for data in sorted({evidence.plan.data for evidence in found})],
        runs=[_run(record) for _, record in sorted(records.items())],
    )
    write_text(results / NAME, page)
    return results / NAME


def _template() -> Any:
    loader = PackageLoader("drrepro.report")
    settings: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined}
    return Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, **settings).get_template(NAME)


def _verdicts(claims: list[Claim]) -> dict[str, int]:
    """Return how many claims have each verdict, in the order of what a reader asks for."""
    counts = Counter(claim.verdict for claim in claims)
    return {verdict: counts[verdict] for verdict in (HOLDS, FAILS, UNDECIDED, NOT_RUN)}


def _table(table: Table, evidence: Evidence) -> dict[str, Any]:
    """Return a table as text: AP alone, by setting and column the cell of each line; and all metrics."""
    lines = [line for line in SHORT if line in table.lines]
    columns = [column for column in table.columns if column.metric == "AP"]
    short = {s: [[_short(line, row[c]) for line in lines] for c in columns] for s, row in table.cells.items()}
    whole = {
        setting: {line: [line_text(line, cell) for cell in row.values()] for line in table.lines}
        for setting, row in table.cells.items()
    }
    published = table.study.published
    elsewhere = table.paper and published is not None and table.data != published.data
    return {
        "title": table.title,
        "name": table.study.title,
        "id": f"{table.study.stem}-{table.data}",
        "data": table.data,
        "question": table.study.question,
        "published_on": published.of if elsewhere and published else None,
        "runs": len(evidence.records),
        "axis": table.study.head,
        "sources": lines,
        "short": short,
        "columns": [str(column) for column in columns],
        "heads": [str(column) for column in table.columns],
        "whole": whole,
        "command": sweep_command(evidence.plan, [record["config"] for record in evidence.records.values()]),
    }


def _short(line: str, cell: Cell) -> str:
    """Return what a line says of a cell, ours with its standard deviation where there is one."""
    text, spread = line_text(line, cell), number_text(cell.percent().sd)
    return f"{text} ± {spread}" if line == "ours" and spread else text


def _figures(claims: list[Claim], found: list[Evidence], runs: Path, report: Report) -> dict[str, Any]:
    """Return the claims' intervals, and by data set (name, caption, SVG) of each figure."""
    drawn: dict[str, Any] = {"claims": None, "sets": {}}
    with matplotlib.rc_context(THEME):
        intervals = claim_intervals(claims)
        if intervals is not None:
            drawn["claims"] = Markup(svg(intervals, "claims"))
        for i, evidence in enumerate(found):
            shown = drawn["sets"].setdefault(evidence.plan.data, {})
            for name, figure in plan_figures(evidence, runs).items():
                if name not in shown:
                    shown[name] = (
                        CAPTIONS[name.rpartition("-")[2]],
                        Markup(svg(figure, f"{evidence.plan.data}-{name}")),
                    )
            report("draw figures", i + 1, len(found), {})
    return drawn


def _examples(found: list[Evidence], runs: Path, data_folder: Path, report: Report) -> list[examples.Examples]:
    """Return the examples of each table of score thresholds, whose runs are all of one kind."""
    tabled = [evidence for evidence in found if evidence.study.axis == THRESHOLD]
    shown = []
    for i, evidence in enumerate(tabled):
        shown.append(examples.find_examples(evidence, runs, data_folder))
        report("draw detections", i + 1, len(tabled), {})
    return shown


def _summary(records: dict[str, Record]) -> dict[str, Any]:
    """Return machines, times, commits and versions of all runs."""
    runs = list(records.values())
    machines = Counter(
        f"{r['machine']['cpu']}, {r['machine']['threads']} of {r['machine']['cores']} cores a run, "
        f"{r['machine']['device']}, {r['machine']['system']}"
        for r in runs
    )
    finished = sorted(r["finished"].removesuffix("+00:00").replace("T", " ") for r in runs)
    return {
        "runs": len(runs),
        "machines": dict(machines),
        "hours": sum(r["cost"]["train_seconds"] for r in runs) / 3600,
        "cpu_hours": sum(r["cost"]["train_cpu_seconds"] for r in runs) / 3600,
        "finished": (finished[0], finished[-1]) if finished else None,
        "commits": sorted({(r["commit"] or "unknown") + (" with changes" if r["dirty"] else "") for r in runs}),
        "versions": sorted(
            {f"{name} {v}" for r in runs for name, v in {"python": r["python"], **r["versions"]}.items()}
        ),
    }


def _data_set(data: str, found: list[Evidence]) -> dict[str, Any]:
    """Return what was planned and run on a data set."""
    plans = [evidence.plan for evidence in found if evidence.plan.data == data]
    records = {name: r for e in found if e.plan.data == data for name, r in e.records.items()}.values()
    of: dict[str, set[Any]] = {
        "test images": {r["data"]["test_images"] for r in records},
        "training images": {r["data"]["train_images"] for r in records},
        "classes": {len(r["data"]["classes"]) for r in records},
        "network": {f"{r['config']['model']['backbone']}, {r['cost']['parameters']:,} parameters" for r in records},
        "input scales, px": {r["config"]["input"]["scale"] for r in records},
        "steps": {r["config"]["schedule"]["steps"] for r in records},
        "images per step": {r["config"]["schedule"]["images_per_step"] for r in records},
        "seeds": {r["config"]["seed"] for r in records},
        "boxes dropped": {len(r["data"]["dropped_boxes"]) for r in records},
        "data, sha256": {r["data"]["sha256"][:16] for r in records if r["data"]["sha256"]},
    }
    facts = {key: ", ".join(map(str, sorted(values - {None}))) or "none" for key, values in of.items()}
    planned = {name for plan in plans for name in plan.run_ids}
    embedded = {r["config"]["data"]["embedded"] for r in records}
    return {
        "name": data,
        "obtain": "make" if embedded == {True} else "fetch" if data in FETCHED else None,
        "stands_for": next((plan.paper for plan in plans if plan.paper and plan.paper != data), None),
        "facts": {"runs": f"{len(records)} of {len(planned)}", **facts},
    }


def _run(record: Record) -> dict[str, Any]:
    row = metrics_at(record, own_threshold(record)) or {}
    ap = row.get("AP")
    return {
        "id": record["id"],
        "AP": percent_text(ap),
        "minutes": f"{record['cost']['train_seconds'] / 60:.1f}",
        "command": run_command(record["config"]),
    }
