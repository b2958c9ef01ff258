"""drrepro report: tables, claims, figures and a page from records."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drrepro.cli.options import REPRODUCED, Debug, Json, Paper, Quiet, Results

if TYPE_CHECKING:
    from drrepro.experiments.plan import Plan

app = typer.Typer(help="Turn run records into tables, claims, figures and a page; runs nothing.", no_args_is_help=True)


@app.command("tables")
def report_tables(
    results: Results = REPRODUCED,
    paper: Paper = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Print Tables 1-3 with paper, ours, spread and difference; write csv, md and tex, and the records behind them.

    Example: drrepro report tables
    """
    show_tables(_plans(paper), results=results, as_json=as_json, quiet=quiet)


@app.command("claims")
def report_claims(
    results: Results = REPRODUCED,
    paper: Paper = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Print for each claim of the paper whether it holds here, and how sure that is; write claims.json, md and png.

    Example: drrepro report claims
    """
    from drrepro.cli.data import stage
    from drrepro.config import runs_folder
    from drrepro.console import print_claims, progress
    from drrepro.report import claims
    from drrepro.report.evidence import gather
    from drrepro.report.figures import write_png
    from drrepro.report.intervals import claim_intervals
    from drrepro.report.written import claim_files, write_files

    plans = _plans(paper)
    with progress(quiet) as watch:
        found = claims.build_claims(gather(plans, runs_folder(), stage(watch, "resample test images")))
    write_files(claim_files(found), results)
    if (figure := claim_intervals(found)) is not None:
        write_png(figure, results / "claims.png")
    if as_json:
        typer.echo(json.dumps(claims.as_json(found)))
    elif not quiet:
        print_claims(claims.claim_table(found), claims.RULE)


@app.command("figures")
def report_figures(
    results: Results = REPRODUCED, as_json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Draw Figure 1, AP against threshold and against scale, and the training curves.

    Example: drrepro report figures
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
    results: Results = REPRODUCED,
    paper: Paper = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write report.html: claims, tables, figures, detections, and how to repeat each number, in one file.

    It needs no network. The detections need the test images, in the data folder.

    Example: drrepro report html
    """
    from drrepro.config import data_folder, runs_folder
    from drrepro.console import progress
    from drrepro.report.html import write_report

    with progress(quiet) as watch:
        path = write_report(_plans(paper), runs_folder(), data_folder(), results, watch)
    if as_json:
        typer.echo(json.dumps({"report": str(path), "bytes": path.stat().st_size}))
    elif not quiet:
        typer.echo(str(path))


@app.command("compare")
def report_compare(
    results: Results = REPRODUCED,
    against: Annotated[Path, typer.Option(help="The folder of results to compare with.")] = Path("results"),
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say cell by cell how a reproduction's AP compares with the published results: difference, inside their interval?

    Example: drrepro report compare --results reproduced --against results
    """
    from drrepro.console import print_plain
    from drrepro.report.compare import compare, summary

    frame = compare(results, against)
    if as_json:
        typer.echo(frame.to_json(orient="records"))
        return
    if not quiet and not frame.empty:
        print_plain(f"AP in {results} beside {against}, per cent, means over the seeds that both have", frame)
    typer.echo(summary(frame, against))


@app.command("verify")
def report_verify(
    results: Annotated[Path, typer.Option(help="The folder of results.")] = Path("results"),
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make every table, claim and interval again from the records kept beside them, and compare; nothing is run.

    Also: each record's id follows from its contents. Exits with 1 if anything differs.

    Example: drrepro report verify --results results
    """
    from drrepro.report.verify import IDENTICAL, verify

    checks = verify(results)
    wrong = [check for check in checks if check.state != IDENTICAL]
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks]))
    else:
        for check in wrong:
            typer.echo(f"{results / check.name} {check.state}")
        if wrong or not quiet:
            typer.echo(f"{len(checks) - len(wrong)} of {len(checks)} identical")
    if wrong:
        raise typer.Exit(1)


def _plans(paper: bool = False) -> "list[Plan]":
    from drrepro.config import runs_folder
    from drrepro.errors import UsageError
    from drrepro.experiments.plan import load_plans
    from drrepro.report.paper import beside

    plans = load_plans(runs_folder())
    if not plans:
        raise UsageError(f"{runs_folder()}: no sweep was run here; try `drrepro sweep all`, or set DRREPRO_RUNS")
    return [beside(plan) for plan in plans] if paper else plans


def show_tables(plans: "list[Plan]", results: Path | None = None, as_json: bool = False, quiet: bool = False) -> None:
    """Print the tables of ``plans``, and write them if there is a ``results`` folder, with what is behind them."""
    from drrepro.cli.data import stage
    from drrepro.config import runs_folder
    from drrepro.console import print_plain, print_table, progress
    from drrepro.report import tables, written
    from drrepro.report.evidence import TABLES, gather

    with progress(quiet) as watch:
        found = gather(plans, runs_folder(), stage(watch, "resample test images"))
    built = tables.build_tables(found)
    plain = [(e.plan, tables.plain_table(e)) for e in found if e.plan.kind not in TABLES]
    paths: list[Path] = []
    if results is not None:
        paths = written.write_files(written.table_files(found), results) + written.keep(found, results)
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
