"""drrepro report: tables, claims, figures and a page from records."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drrepro.cli.options import Debug, Json, Quiet, Results

if TYPE_CHECKING:
    from drrepro.experiments.plan import Plan

app = typer.Typer(help="Turn run records into tables, claims, figures and a page; runs nothing.", no_args_is_help=True)


@app.command("tables")
def report_tables(
    results: Results = Path("results"), as_json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Print Tables 1-3 with paper, ours, spread and difference; write csv, md and tex, and the records behind them.

    Example: drrepro report tables --results results
    """
    show_tables(_plans(), results=results, as_json=as_json, quiet=quiet)


@app.command("claims")
def report_claims(
    results: Results = Path("results"), as_json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Print for each claim of the paper whether it holds here, and how sure that is; write claims.json, md and png.

    Example: drrepro report claims --results results
    """
    from drrepro.cli.data import stage
    from drrepro.config import runs_folder
    from drrepro.console import print_claims, progress
    from drrepro.report import claims
    from drrepro.report.evidence import gather
    from drrepro.report.figures import write_png
    from drrepro.report.intervals import claim_intervals

    plans = _plans()
    with progress(quiet) as watch:
        found = claims.build_claims(gather(plans, runs_folder(), stage(watch, "resample test images")))
    claims.write_claims(found, results)
    if (figure := claim_intervals(found)) is not None:
        write_png(figure, results / "claims.png")
    if as_json:
        typer.echo(json.dumps(claims.as_json(found)))
    elif not quiet:
        print_claims(claims.claim_table(found), claims.RULE)


@app.command("figures")
def report_figures(
    results: Results = Path("results"), as_json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Draw Figure 1, AP against threshold and against scale, and the training curves.

    Example: drrepro report figures --results results
    """
    from drrepro.config import runs_folder
    from drrepro.report.figures import draw_figures

    paths = [str(path) for path in draw_figures(_plans(), runs_folder(), results)]
    if as_json:
        typer.echo(json.dumps(paths))
    elif not quiet:
        typer.echo("\n".join(paths))


@app.command("figure1")
def report_figure1(
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN_ID...", help="Names of folders in the runs folder.")],
    output: Annotated[Path, typer.Option(help="Where to write, .png and .svg are added.")] = Path("figure1"),
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw Figure 1 of any runs beside each other: the densities of their foreground and background scores.

    For a checkpoint without a record, evaluate it first: that makes a run.

    Example: drrepro report figure1 digits-dr-128-s0-1a2b3c4d digits-focal-128-s0-5e6f7a8b --output mine
    """
    from drrepro.config import runs_folder
    from drrepro.experiments.records import require_record
    from drrepro.report.figures import draw_figure1

    records = [require_record(runs_folder() / name.removeprefix("run:")) for name in run_ids]
    paths = [str(path) for path in draw_figure1(records, output)]
    if as_json:
        typer.echo(json.dumps(paths))
    elif not quiet:
        typer.echo("\n".join(paths))


@app.command("html")
def report_html(
    results: Results = Path("results"), as_json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Write report.html: claims, tables, figures, detections, and how to repeat each number, in one file.

    It needs no network. The detections need the test images, in the data folder.

    Example: drrepro report html --results results
    """
    from drrepro.config import data_folder, runs_folder
    from drrepro.console import progress
    from drrepro.report.html import write_report

    with progress(quiet) as watch:
        path = write_report(_plans(), runs_folder(), data_folder(), results, watch)
    if as_json:
        typer.echo(json.dumps({"report": str(path), "bytes": path.stat().st_size}))
    elif not quiet:
        typer.echo(str(path))


def _plans() -> "list[Plan]":
    from drrepro.config import runs_folder
    from drrepro.errors import UsageError
    from drrepro.experiments.plan import load_plans

    plans = load_plans(runs_folder())
    if not plans:
        raise UsageError(f"{runs_folder()}: no sweep was run here; try `drrepro sweep all`, or set DRREPRO_RUNS")
    return plans


def show_tables(
    plans: "list[Plan]",
    results: Path | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> None:
    """Print the tables of ``plans``, and write them if there is a ``results`` folder."""
    from drrepro.cli.data import stage
    from drrepro.config import runs_folder
    from drrepro.console import print_plain, print_table, progress
    from drrepro.report import tables
    from drrepro.report.evidence import records_of

    runs = runs_folder()
    with progress(quiet) as watch:
        built = tables.build_tables(plans, runs, stage(watch, "resample test images"))
    plain = [(p, tables.plain_table(p, records_of(p, runs))) for p in plans if p.kind in ("nms", "grid")]
    paths: list[Path] = []
    if results is not None:
        paths = tables.write_tables(built, results) + tables.copy_records(plans, runs, results)
        for plan, frame in plain:
            paths += tables.write_plain(plan.name, plan.data, frame, results)
        for data in sorted({plan.data for plan in plans}):
            paths += tables.write_plain("runs", data, tables.run_table(plans, runs, data), results)
    if as_json:
        content: list[dict[str, Any]] = [tables.as_json(table) for table in built]
        content += [
            {"title": p.name, "data": p.data, "rows": json.loads(f.to_json(orient="records"))} for p, f in plain
        ]
        typer.echo(json.dumps(content))
    elif not quiet:
        for table in built:
            print_table(table)
        for plan, frame in plain:
            print_plain(f"{plan.name}, {plan.data}", frame)
        if paths:
            typer.echo(f"{len(paths)} files written under {results}", err=True)
