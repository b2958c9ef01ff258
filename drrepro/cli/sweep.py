"""drrepro sweep: everything that a table needs."""

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from drrepro.cli.options import ConfigDir, Debug, DryRun, FailFast, Jobs, Json, Overrides, Quiet, RetryFailed, Tables
from drrepro.cli.report import show_tables

if TYPE_CHECKING:
    from drrepro.experiments.plan import Plan
    from drrepro.experiments.sweep import Outcome
    from drrepro.schema import Config

    Plans = list[tuple[Plan, list[Config]]]

app = typer.Typer(help="Train and evaluate everything that a table of the paper needs.", no_args_is_help=True)


@app.command("thresholds")
def sweep_thresholds(
    overrides: Overrides = None,
    nms_iou: Annotated[str, typer.Option(help="NMS IoUs to evaluate besides, such as 0.4,0.5,0.6.")] = "",
    jobs: Jobs = 1,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
    fail_fast: FailFast = False,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Table 1: both losses at six score thresholds, from one forward pass each.

    Example: drrepro sweep thresholds data=digits seed=0,1,2 --jobs 2
    """
    from drrepro.experiments import plan

    ious = _numbers("--nms-iou", nms_iou)
    trained, configs = plan.thresholds(overrides or [], config_dir)
    planned = [(trained, configs), *([plan.nms(configs, ious)] if ious else [])]
    _sweep(planned, Options(jobs, dry_run, retry_failed, fail_fast, as_json, quiet))


@app.command("scales")
def sweep_scales(
    overrides: Overrides = None,
    jobs: Jobs = 1,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
    fail_fast: FailFast = False,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Table 2: both losses, trained and tested at 0.5, 0.625, 0.75, 0.875 and 1 of input.scale.

    Example: drrepro sweep scales data=digits --jobs 2
    """
    from drrepro.experiments import plan

    _sweep([plan.scales(overrides or [], config_dir)], Options(jobs, dry_run, retry_failed, fail_fast, as_json, quiet))


@app.command("datasets")
def sweep_datasets(
    overrides: Overrides = None,
    jobs: Jobs = 1,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
    fail_fast: FailFast = False,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Table 3: both losses on a second data set (default letters) with the parameters of the first.

    Example: drrepro sweep datasets data=voc_custom data.root=BCCD
    """
    from drrepro.experiments import plan

    _sweep(
        [plan.datasets(overrides or [], config_dir)], Options(jobs, dry_run, retry_failed, fail_fast, as_json, quiet)
    )


@app.command("all")
def sweep_all(
    overrides: Overrides = None,
    jobs: Jobs = 1,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
    fail_fast: FailFast = False,
    tables: Tables = True,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Everything: Tables 1 and 2 on digits, or on data=coco2017, Tables 1 and 3 on letters, or on VOC2007.

    Example: drrepro sweep all seed=0,1,2 --jobs 2
    """
    from drrepro.experiments import plan

    _sweep(
        plan.everything(overrides or [], config_dir),
        Options(jobs, dry_run, retry_failed, fail_fast, as_json, quiet, tables),
    )


@app.command("grid")
def sweep_grid(
    overrides: Overrides = None,
    name: Annotated[str, typer.Option(help="Name of the table that the report makes of it.")] = "grid",
    jobs: Jobs = 1,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
    fail_fast: FailFast = False,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Any product of axes.

    Example: drrepro sweep grid loss=dr,focal schedule.lr=1e-3,2e-3 evaluation.split=tune --name tuning
    """
    from drrepro.experiments import plan

    _sweep(
        [plan.grid(overrides or [], config_dir, name)], Options(jobs, dry_run, retry_failed, fail_fast, as_json, quiet)
    )


@dataclass(frozen=True)
class Options:
    """What every sweep is asked for beside its runs."""

    jobs: int
    dry_run: bool
    retry_failed: bool
    fail_fast: bool
    as_json: bool
    quiet: bool
    tables: bool = True


def _sweep(planned: "Plans", options: Options) -> None:
    from drrepro.cli.estimate import print_scaling, show_estimate
    from drrepro.config import run_id, runs_folder
    from drrepro.experiments.plan import save_plan

    configs = list({run_id(config): config for _, own in planned for config in own}.values())
    if not options.quiet:
        print_scaling(configs)
    if options.dry_run:
        show_estimate(configs, options.jobs, options.as_json, options.quiet)
        return
    for plan, _ in planned:  # before the runs, so that the report shows what an interrupted sweep has done
        save_plan(plan, runs_folder())
    started = time.perf_counter()
    outcomes = _carry_out(configs, options)
    if options.as_json:
        typer.echo(json.dumps([asdict(outcome) for outcome in outcomes]))
    else:
        _print_outcomes(outcomes, time.perf_counter() - started)
        if options.tables:
            show_tables([plan for plan, _ in planned])
    if any(outcome.state not in ("done", "skipped") for outcome in outcomes):
        raise typer.Exit(1)


def _carry_out(configs: "list[Config]", options: Options) -> "list[Outcome]":
    from drrepro.config import data_folder, runs_folder
    from drrepro.console import progress
    from drrepro.experiments.sweep import sweep

    training = [config for config in configs if config.schedule.steps]
    evaluating = [config for config in configs if not config.schedule.steps]  # of runs that the others train
    with progress(options.quiet) as watch:
        settings = (runs_folder(), data_folder(), options.jobs, watch, options.retry_failed, options.fail_fast)
        outcomes = sweep(training, *settings)
        if not (options.fail_fast and any(outcome.state == "failed" for outcome in outcomes)):
            outcomes += sweep(evaluating, *settings)
    return outcomes


def _print_outcomes(outcomes: "list[Outcome]", seconds: float) -> None:
    """Print what became of each run, with reason and log where it failed."""
    from drrepro.console import plain_table, print_rich

    table = plain_table("run", "state", "why", "log")
    for outcome in outcomes:
        table.add_row(outcome.run_id, outcome.state, outcome.why, outcome.log)
    print_rich(table)
    counts = {s: sum(o.state == s for o in outcomes) for s in ("done", "skipped", "failed")}
    text = f"{counts['done']} run in {seconds:.0f} s, {counts['skipped']} already done, {counts['failed']} failed"
    typer.echo(text, err=True)


def _numbers(option: str, text: str) -> list[float]:
    from drrepro.errors import UsageError

    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError:
        raise UsageError(f"{option} {text}: needs numbers separated by commas") from None
