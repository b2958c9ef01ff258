"""drrepro sweep: everything that a table needs."""

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from drrepro.cli.lazy import lazily
from drrepro.cli.options import Output, Overrides, Sweep, command
from drrepro.cli.report import show_tables
from drrepro.progress import stage

with lazily():
    from drrepro import config, console, errors
    from drrepro.cli import estimate
    from drrepro.experiments import sweep
    from drrepro.report import checks, evidence, seeds
    from drrepro.studies import plan, planning

if TYPE_CHECKING:
    import pandas as pd

    from drrepro.experiments.sweep import Outcome
    from drrepro.schema import Config
    from drrepro.studies.planning import Planned


class Studies(TyperGroup):
    """The commands below, and any other word as the name of a study."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Take a word that is no command for the first argument of ``study``."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            return "study", self.get_command(ctx, "study"), args
        return super().resolve_command(ctx, args)


HELP = "Train and evaluate everything that a table of the paper needs, or any other study."
app = typer.Typer(cls=Studies, help=HELP, no_args_is_help=True)


@command(app, "thresholds")
def sweep_thresholds(
    sweep: Sweep,
    out: Output,
    overrides: Overrides = None,
    nms_iou: Annotated[str, typer.Option(help="NMS IoUs to evaluate besides, such as 0.4,0.5,0.6.")] = "",
) -> None:
    """Table 1: both losses at six score thresholds, from one forward pass each.

    Example: drrepro sweep thresholds data=digits seed=0,1,2 --jobs 2
    """
    ious = _numbers("--nms-iou", nms_iou)
    trained, configs = planning.plan_study("thresholds", overrides or [], sweep.config_dir)
    _sweep([(trained, configs), *([planning.nms(configs, ious)] if ious else [])], sweep, out)


@command(app, "scales")
def sweep_scales(sweep: Sweep, out: Output, overrides: Overrides = None) -> None:
    """Table 2: both losses, trained and tested at 0.5, 0.625, 0.75, 0.875 and 1 of input.scale.

    Example: drrepro sweep scales data=digits --jobs 2
    """
    sweep_study("scales", sweep, out, overrides)


@command(app, "datasets")
def sweep_datasets(sweep: Sweep, out: Output, overrides: Overrides = None) -> None:
    """Table 3: both losses on a second data set (default letters) with the parameters of the first.

    Example: drrepro sweep datasets data=voc_custom data.root=BCCD
    """
    sweep_study("datasets", sweep, out, overrides)


@command(app, "all")
def sweep_all(sweep: Sweep, out: Output, overrides: Overrides = None) -> None:
    """Everything: Tables 1 and 2 on digits, or on data=coco2017, Tables 1 and 3 on letters, or on VOC2007.

    Example: drrepro sweep all seed=0,1,2 --jobs 2
    """
    _sweep(planning.everything(overrides or [], sweep.config_dir), sweep, out)


@command(app, "grid")
def sweep_grid(
    sweep: Sweep,
    out: Output,
    overrides: Overrides = None,
    name: Annotated[str, typer.Option(help="Name of the table that the report makes of it.")] = "grid",
) -> None:
    """Any product of axes.

    Example: drrepro sweep grid loss=dr,focal schedule.lr=1e-3,2e-3 evaluation.split=tune --name tuning
    """
    _sweep([planning.grid(overrides or [], sweep.config_dir, name)], sweep, out)


@command(app, "study")
def sweep_study(
    name: Annotated[str, typer.Argument(help="The name of a yaml in study/ under --config-dir, or in conf/study.")],
    sweep: Sweep,
    out: Output,
    overrides: Overrides = None,
) -> None:
    """Any study, also one of your own: the word "study" may be left out.

    Example: drrepro sweep mine --config-dir my_options data=digits seed=0,1,2
    """
    _sweep([planning.plan_study(name, overrides or [], sweep.config_dir)], sweep, out)


def _sweep(planned: "list[Planned]", options: Sweep, out: Output) -> None:
    configs = list({config.run_id(c): c for _, own in planned for c in own}.values())
    if not out.quiet:
        estimate.print_scaling(configs)
    if options.detect is not None and not options.dry_run:
        raise errors.UsageError("--detect: goes with --dry-run")
    if options.dry_run:
        estimate.show_estimate(configs, options.jobs, out, _seeds_needed(planned, options, out))
        return
    for one, _ in planned:
        checks.check_study(one.study)
    for one, _ in planned:  # before the runs, so that the report shows what an interrupted sweep has done
        plan.save_plan(one, config.runs_folder())
    started = time.perf_counter()
    outcomes = _carry_out(configs, options, out)
    if out.as_json:
        typer.echo(json.dumps([asdict(outcome) for outcome in outcomes]))
    else:
        _print_outcomes(outcomes, time.perf_counter() - started)
        if options.tables:
            show_tables([one for one, _ in planned], Output())
    if any(outcome.state not in ("done", "skipped") for outcome in outcomes):
        raise typer.Exit(1)


def _seeds_needed(planned: "list[Planned]", options: Sweep, out: Output) -> "pd.DataFrame | None":
    """Return what --detect asks for, from the runs of the plans that there are."""
    if options.detect is None:
        return None
    plans = [one for one, _ in planned if one.study is not None]
    with console.progress(out.quiet) as watch:
        found = evidence.gather(plans, config.runs_folder(), stage(watch, "resample test images"))
    return seeds.seeds_needed(found, options.detect)


def _carry_out(configs: "list[Config]", options: Sweep, out: Output) -> "list[Outcome]":
    training = [c for c in configs if c.schedule.steps]
    evaluating = [c for c in configs if not c.schedule.steps]  # of runs that the others train
    with console.progress(out.quiet) as watch:
        folders = config.runs_folder(), config.data_folder()
        settings = (*folders, options.jobs, watch, options.retry_failed, options.fail_fast)
        outcomes = sweep.sweep(training, *settings)
        if not (options.fail_fast and any(outcome.state == "failed" for outcome in outcomes)):
            outcomes += sweep.sweep(evaluating, *settings)
    return outcomes


def _print_outcomes(outcomes: "list[Outcome]", seconds: float) -> None:
    """Print what became of each run, with reason and log where it failed."""
    table = console.plain_table("run", "state", "why", "log")
    for outcome in outcomes:
        table.add_row(outcome.run_id, outcome.state, outcome.why, outcome.log)
    console.print_rich(table)
    counts = {s: sum(o.state == s for o in outcomes) for s in ("done", "skipped", "failed")}
    text = f"{counts['done']} run in {seconds:.0f} s, {counts['skipped']} already done, {counts['failed']} failed"
    typer.echo(text, err=True)


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError:
        raise errors.UsageError(f"{option} {text}: needs numbers separated by commas") from None
