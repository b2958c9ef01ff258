"""drrepro report: tables, claims, figures and a page from records."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drrepro.cli.lazy import lazily
from drrepro.cli.options import REPRODUCED, ConfigDir, Output, Paper, Results, command
from drrepro.progress import stage

with lazily():
    from drrepro import composing, config, console, errors, files
    from drrepro.report import (
        claim,
        claim_text,
        claims,
        compare,
        evidence,
        figures,
        html,
        intervals,
        paper,
        table,
        tables,
        verify,
        written,
    )
    from drrepro.runs import records
    from drrepro.studies import plan

if TYPE_CHECKING:
    from drrepro.studies.plan import Plan

app = typer.Typer(help="Turn run records into tables, claims, figures and a page; runs nothing.", no_args_is_help=True)


@dataclass(frozen=True)
class Report:
    """What is reported on, and where to."""

    results: Results = REPRODUCED
    paper: Paper = False
    config_dir: ConfigDir = None


@command(app, "tables")
def report_tables(report: Report, out: Output) -> None:
    """Print Tables 1-3 with paper, ours, spread and difference; write csv, md and tex, and the records behind them.

    Example: drrepro report tables
    """
    show_tables(_plans(report), out, report.results)


@command(app, "claims")
def report_claims(report: Report, out: Output) -> None:
    """Print for each claim of the paper whether it holds here, and how sure that is; write claims.json, md and png.

    Example: drrepro report claims
    """
    plans = _plans(report)
    with console.progress(out.quiet) as watch:
        found = evidence.gather(plans, config.runs_folder(), stage(watch, "resample test images"))
    made = claims.build_claims(found)
    written.write_files(written.claim_files(made), report.results)
    if (figure := intervals.claim_intervals(made)) is not None:
        files.write_png(figure, report.results / "claims.png")
    if out.as_json:
        typer.echo(json.dumps(claim_text.as_json(made)))
    elif not out.quiet:
        console.print_claims(claim_text.claim_table(made), claim.RULE)


@command(app, "figures")
def report_figures(report: Report, out: Output) -> None:
    """Draw Figure 1, AP against threshold and against scale, and the training curves.

    Example: drrepro report figures
    """
    plans, runs = _plans(report), config.runs_folder()
    with console.progress(out.quiet) as watch:
        paths = figures.draw_figures(plans, runs, report.results, stage(watch, "resample test images"))
    _say_paths(paths, out)


@command(app, "figure1")
def report_figure1(
    out: Output,
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN_ID...", help="Names of folders in the runs folder.")],
    output: Annotated[Path, typer.Option(help="Where to write, .png and .svg are added.")] = Path("figure1"),
) -> None:
    """Draw Figure 1 of any runs beside each other: the densities of their foreground and background scores.

    For a checkpoint without a record, evaluate it first: that makes a run.

    Example: drrepro report figure1 digits-dr-128-s0-1a2b3c4d digits-focal-128-s0-5e6f7a8b --output mine
    """
    own = [records.require_record(config.runs_folder() / name.removeprefix("run:")) for name in run_ids]
    _say_paths(figures.draw_figure1(own, output), out)


@command(app, "html")
def report_html(report: Report, out: Output) -> None:
    """Write report.html: claims, tables, figures, detections, and how to repeat each number, in one file.

    It needs no network. The detections need the test images, in the data folder.

    Example: drrepro report html
    """
    plans = _plans(report)
    with console.progress(out.quiet) as watch:
        path = html.write_report(plans, config.runs_folder(), config.data_folder(), report.results, watch)
    if out.as_json:
        typer.echo(json.dumps({"report": str(path), "bytes": path.stat().st_size}))
    elif not out.quiet:
        typer.echo(str(path))


@command(app, "compare")
def report_compare(
    out: Output,
    results: Results = REPRODUCED,
    against: Annotated[Path, typer.Option(help="The folder of results to compare with.")] = Path("results"),
) -> None:
    """Say cell by cell how a reproduction's AP compares with the published results: difference, inside their interval?

    Example: drrepro report compare --results reproduced --against results
    """
    frame = compare.compare(results, against)
    if out.as_json:
        typer.echo(frame.to_json(orient="records"))
        return
    if not out.quiet and not frame.empty:
        console.print_plain(f"AP in {results} beside {against}, per cent, means over the seeds that both have", frame)
    typer.echo(compare.summary(frame, against))


@command(app, "verify")
def report_verify(
    out: Output,
    results: Annotated[Path, typer.Option(help="The folder of results.")] = Path("results"),
    config_dir: ConfigDir = None,
) -> None:
    """Make every table, claim and interval again from the records kept beside them, and compare; nothing is run.

    Also: each record's id follows from its contents. Exits with 1 if anything differs.

    Example: drrepro report verify --results results
    """
    composing.make_importable(config_dir)
    with console.progress(out.quiet) as watch:
        checks = verify.verify(results, stage(watch, "bench verdicts"))
    wrong = [check for check in checks if check.state != verify.IDENTICAL]
    if out.as_json:
        typer.echo(json.dumps([asdict(check) for check in checks]))
    else:
        for check in wrong:
            typer.echo(f"{results / check.name} {check.state}")
        if wrong or not out.quiet:
            typer.echo(f"{len(checks) - len(wrong)} of {len(checks)} identical")
    if wrong:
        raise typer.Exit(1)


def _say_paths(paths: list[Path], out: Output) -> None:
    said = [str(path) for path in paths]
    if out.as_json:
        typer.echo(json.dumps(said))
    elif not out.quiet:
        typer.echo("\n".join(said))


def _plans(report: Report) -> "list[Plan]":
    composing.make_importable(report.config_dir)
    plans = plan.load_plans(config.runs_folder())
    if not plans:
        folder = config.runs_folder()
        raise errors.UsageError(f"{folder}: no sweep was run here; try `drrepro sweep all`, or set DRREPRO_RUNS")
    return [paper.beside(one) for one in plans] if report.paper else plans


def show_tables(plans: "list[Plan]", out: Output, results: Path | None = None) -> None:
    """Print the tables of ``plans``, and write them if there is a ``results`` folder, with what is behind them."""
    with console.progress(out.quiet) as watch:
        found = evidence.gather(plans, config.runs_folder(), stage(watch, "resample test images"))
    built = tables.build_tables(found)
    plain = [(own.plan, tables.plain_table(own)) for own in found if own.plan.study is None]
    paths: list[Path] = []
    if results is not None:
        paths = written.write_files(written.table_files(found), results) + written.keep(found, results)
    if out.as_json:
        content: list[dict[str, Any]] = [table.as_json(one) for one in built]
        content += [
            {"title": p.name, "data": p.data, "rows": json.loads(f.to_json(orient="records"))} for p, f in plain
        ]
        typer.echo(json.dumps(content))
    elif not out.quiet:
        for one in built:
            console.print_table(one)
        for own, frame in plain:
            console.print_plain(f"{own.name}, {own.data}", frame)
        if paths:
            typer.echo(f"{len(paths)} files written under {results}", err=True)
