"""report.html: all that was found, in one file to read; made from what the runs have kept, nothing is run."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from drrepro.data.download import FETCHED
from drrepro.experiments.plan import Plan
from drrepro.experiments.records import Record, metrics_at
from drrepro.files import write_text
from drrepro.progress import Report
from drrepro.report import examples, paper
from drrepro.report.claims import FAILS, HOLDS, NOT_RUN, RULE, UNDECIDED, Claim, build_claims, claim_table
from drrepro.report.evidence import TABLES, Evidence, gather, numbered, own_threshold
from drrepro.report.figures import plan_figures
from drrepro.report.intervals import claim_intervals
from drrepro.report.page_figures import THEME, svg
from drrepro.report.repeat import run_command, sweep_command
from drrepro.report.tables import Table, build_table, display

NAME = "report.html"
SOURCES = ("paper", "ours", "95%", "difference")
CAPTIONS = {
    "ap_threshold": "AP against score threshold. Dots: the thresholds of Table 1; bands: the range over seeds.",
    "ap_scale": "AP against input scale, mean over seeds.",
    "figure1": "Figure 1: densities of foreground and background scores, the background's divided by 10 in (b).",
    "training": "Classification and box loss in training. The classification losses do not compare.",
}


def write_report(plans: list[Plan], runs: Path, data_folder: Path, results: Path, report: Report) -> Path:
    """Write report.html and return its path. Raises UsageError for a damaged record."""
    found = numbered(gather(plans, runs, lambda done, total: report("resample test images", done, total, {})))
    claims = build_claims(found)
    records = {name: record for evidence in found for name, record in evidence.records.items()}
    page = _template().render(
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        claims=[(claim, claim_table([claim]).drop(columns=["claim", "data", "verdict"])) for claim in claims],
        verdicts=_verdicts(claims),
        rule=RULE,
        tables=[_table(build_table(evidence), evidence) for evidence in found],
        figures=_figures(claims, found, runs, report),
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
    """Return a table as text: AP alone, by setting and column the cell of each source; and all metrics."""
    text = display(table.frame)
    cells = {(row[0], row[1]): dict(zip(text.columns[2:], row[2:], strict=True)) for row in text.to_numpy()}
    settings = list(dict.fromkeys(text.iloc[:, 0]))
    sources = [source for source in SOURCES if (settings[0], source) in cells]
    columns = ("focal AP", "dr AP", "dr - focal AP")
    short = {s: [[_cell(cells, s, source, column) for source in sources] for column in columns] for s in settings}
    configs = [record["config"] for record in evidence.records.values()]
    whole = {setting: {k[1]: list(v.values()) for k, v in cells.items() if k[0] == setting} for setting in settings}
    return {
        "title": table.title,
        "number": table.number,
        "data": table.data,
        "published_on": paper.DATA[table.number]
        if "paper" in sources and table.data != paper.SETS[table.number]
        else None,
        "runs": len(evidence.records),
        "axis": text.columns[0],
        "sources": sources,
        "short": short,
        "columns": columns,
        "heads": list(text.columns[2:]),
        "whole": whole,
        "command": sweep_command(evidence.plan, configs),
    }


def _cell(cells: dict[tuple[str, str], dict[str, str]], setting: str, source: str, column: str) -> str:
    """Return a cell, ours with its standard deviation where there is one."""
    text = cells[setting, source][column]
    spread = cells.get((setting, "sd (n)"), {}).get(column) if source == "ours" else None
    return f"{text} ± {spread.split()[0]}" if spread else text


def _figures(claims: list[Claim], found: list[Evidence], runs: Path, report: Report) -> dict[str, Any]:
    """Return the claims' intervals, and by data set (name, caption, SVG) of each figure."""
    drawn: dict[str, Any] = {"claims": None, "sets": {}}
    with matplotlib.rc_context(THEME):
        intervals = claim_intervals(claims)
        if intervals is not None:
            drawn["claims"] = Markup(svg(intervals, "claims"))
        for i, evidence in enumerate(found):
            own = drawn["sets"].setdefault(evidence.plan.data, {})
            for name, figure in plan_figures(evidence.plan, runs).items():
                if name not in own:
                    own[name] = (CAPTIONS[name], Markup(svg(figure, f"{evidence.plan.data}-{name}")))
            report("draw figures", i + 1, len(found), {})
    return drawn


def _examples(found: list[Evidence], runs: Path, data_folder: Path, report: Report) -> list[examples.Examples]:
    """Return the examples of each data set that has a Table 1."""
    own = [evidence for evidence in found if evidence.plan.kind == TABLES[0]]
    shown = []
    for i, evidence in enumerate(own):
        shown.append(examples.find_examples(evidence, runs, data_folder))
        report("draw detections", i + 1, len(own), {})
    return shown


def _summary(records: dict[str, Record]) -> dict[str, Any]:
    """Return machines, times, commits and versions of all runs."""
    own = list(records.values())
    machines = Counter(
        f"{r['machine']['cpu']}, {r['machine']['threads']} of {r['machine']['cores']} cores a run, "
        f"{r['machine']['device']}, {r['machine']['system']}"
        for r in own
    )
    finished = sorted(r["finished"].removesuffix("+00:00").replace("T", " ") for r in own)
    return {
        "runs": len(own),
        "machines": dict(machines),
        "hours": sum(r["cost"]["train_seconds"] for r in own) / 3600,
        "cpu_hours": sum(r["cost"]["train_cpu_seconds"] for r in own) / 3600,
        "finished": (finished[0], finished[-1]) if finished else None,
        "commits": sorted({(r["commit"] or "unknown") + (" with changes" if r["dirty"] else "") for r in own}),
        "versions": sorted(
            {f"{name} {v}" for r in own for name, v in {"python": r["python"], **r["versions"]}.items()}
        ),
    }


def _data_set(data: str, found: list[Evidence]) -> dict[str, Any]:
    """Return what was planned and run on a data set."""
    plans = [evidence.plan for evidence in found if evidence.plan.data == data]
    records = {name: r for e in found if e.plan.data == data for name, r in e.records.items()}.values()
    of = {
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
    planned = {cell.run_id for plan in plans for cell in plan.cells}
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
        "AP": "" if ap is None else f"{100 * ap:.1f}",
        "minutes": f"{record['cost']['train_seconds'] / 60:.1f}",
        "command": run_command(record["config"]),
    }
