"""The command line: parse, call, print. Heavy imports are inside the commands, so that --help answers at once."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from drrepro.experiments.plan import Plan
    from drrepro.experiments.sweep import Outcome
    from drrepro.schema import Config

    Plans = list[tuple[Plan, list[Config]]]

HELP = """Check the claims of the DR loss paper: does a RetinaNet detect better than with focal loss when the
distribution of foreground scores is ranked above that of background scores?

Positional arguments are Hydra overrides; the keys and their sources are in drrepro/schema.py, the choices in conf/.
Data lie in $DRREPRO_DATA (default ./data), runs in $DRREPRO_RUNS (default ./runs)."""

app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
sweep_app = typer.Typer(help="Train and evaluate everything that a table of the paper needs.", no_args_is_help=True)
report_app = typer.Typer(help="Turn run records into tables and figures; runs nothing.", no_args_is_help=True)
data_app = typer.Typer(help="The embedded data sets.", no_args_is_help=True)
bench_app = typer.Typer(help="Measurements that the README quotes.", no_args_is_help=True)
for name, group in (("sweep", sweep_app), ("report", report_app), ("data", data_app), ("bench", bench_app)):
    app.add_typer(group, name=name)


@dataclass
class State:
    """What `main` must know of the command line when an error reaches it."""

    debug: bool = False


state = State()


def _set_debug(value: bool) -> bool:
    state.debug |= value
    return value


Overrides = Annotated[list[str] | None, typer.Argument(help="Hydra overrides, such as loss=dr data=digits seed=1.")]
ConfigDir = Annotated[Path | None, typer.Option(help="A folder of further options, laid out like conf/.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", callback=_set_debug)]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs at a time; each gets its share of the cores.")]
Tables = Annotated[bool, typer.Option(help="Print the tables at the end.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print which runs exist and which are to be run; run nothing.")]
Results = Annotated[Path, typer.Option(help="Where to write, under a folder for each data set.")]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Print the version if asked to."""
    if version:
        from drrepro import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def train(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train one detector and evaluate it; go on from its checkpoint if there is one.

    Example: drrepro train loss=dr data=digits seed=1
    """
    from drrepro.config import compose

    _run(compose(overrides or [], config_dir), as_json, quiet)


@app.command()
def evaluate(
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Evaluate the detector of a run, on other data or with other evaluation keys than its own.

    Example: drrepro evaluate weights=run:digits-dr-128-s0-1a2b3c4d evaluation.nms_iou=0.6
    """
    from drrepro.config import compose, for_evaluation, from_dict, runs_folder
    from drrepro.errors import UsageError
    from drrepro.experiments.records import read_record

    given = overrides or []
    weights = compose(given).weights
    if not weights.startswith("run:"):
        raise UsageError("weights=run:ID is needed, the name of a folder in the runs folder")
    directory = runs_folder() / weights.removeprefix("run:")
    record = read_record(directory)
    if record is None:
        raise UsageError(f"{directory}: no finished run here")
    _run(for_evaluation(from_dict(record["config"], directory), given), as_json, quiet)


def _run(config: "Config", as_json: bool, quiet: bool) -> None:
    from drrepro.config import data_folder, run_id, runs_folder
    from drrepro.console import print_metrics, progress
    from drrepro.experiments.run import run

    with progress(quiet) as report:
        record = run(config, runs_folder(), data_folder(), report)
    if as_json:
        typer.echo(json.dumps(record))
    else:
        print_metrics(record, runs_folder() / run_id(config))


@sweep_app.command("thresholds")
def sweep_thresholds(
    overrides: Overrides = None,
    nms_iou: Annotated[str, typer.Option(help="NMS IoUs to evaluate besides, such as 0.4,0.5,0.6.")] = "",
    jobs: Jobs = 1,
    dry_run: DryRun = False,
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
    _sweep([(trained, configs)], jobs, dry_run, as_json and not ious, quiet, tables=not ious)
    if ious:
        _sweep([plan.nms(configs, ious)], jobs, dry_run, as_json, quiet)


@sweep_app.command("scales")
def sweep_scales(
    overrides: Overrides = None,
    jobs: Jobs = 1,
    dry_run: DryRun = False,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Table 2: both losses, trained and tested at 0.5, 0.625, 0.75, 0.875 and 1 of input.scale.

    Example: drrepro sweep scales data=digits --jobs 2
    """
    from drrepro.experiments import plan

    _sweep([plan.scales(overrides or [], config_dir)], jobs, dry_run, as_json, quiet)


@sweep_app.command("datasets")
def sweep_datasets(
    overrides: Overrides = None,
    jobs: Jobs = 1,
    dry_run: DryRun = False,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Table 3: both losses on a second data set (default letters) with the parameters of the first.

    Example: drrepro sweep datasets data=voc_custom data.root=BCCD
    """
    from drrepro.experiments import plan

    _sweep([plan.datasets(overrides or [], config_dir)], jobs, dry_run, as_json, quiet)


@sweep_app.command("all")
def sweep_all(
    overrides: Overrides = None,
    jobs: Jobs = 1,
    dry_run: DryRun = False,
    tables: Tables = True,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Everything on the embedded data: Tables 1 and 2 on digits, Tables 1 and 3 on letters.

    Example: drrepro sweep all seed=0,1,2 --jobs 2
    """
    from drrepro.experiments import plan

    given = overrides or []
    planned = [
        plan.thresholds(["data=digits", *given], config_dir),
        plan.scales(["data=digits", *given], config_dir),
        plan.datasets(["data=letters", *given], config_dir),
        plan.thresholds(["data=letters", *given], config_dir),
    ]
    _sweep(planned, jobs, dry_run, as_json, quiet, tables)


@sweep_app.command("grid")
def sweep_grid(
    overrides: Overrides = None,
    name: Annotated[str, typer.Option(help="Name of the table that the report makes of it.")] = "grid",
    jobs: Jobs = 1,
    dry_run: DryRun = False,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Any product of axes.

    Example: drrepro sweep grid loss=dr,focal schedule.lr=1e-3,2e-3 evaluation.split=tune --name tuning
    """
    from drrepro.experiments import plan

    _sweep([plan.grid(overrides or [], config_dir, name)], jobs, dry_run, as_json, quiet)


def _sweep(planned: "Plans", jobs: int, dry_run: bool, as_json: bool, quiet: bool, tables: bool = True) -> None:
    from drrepro.config import data_folder, run_id, runs_folder
    from drrepro.console import print_plan, progress
    from drrepro.experiments.plan import save_plan
    from drrepro.experiments.sweep import state_of, sweep

    runs = runs_folder()
    configs = list({run_id(config): config for _, own in planned for config in own}.values())
    if dry_run:
        states = {run_id(config): state_of(config, runs) for config in configs}
        typer.echo(json.dumps(states)) if as_json else print_plan(states)
        return
    started = time.perf_counter()
    with progress(quiet) as watch:
        outcomes = sweep(configs, runs, data_folder(), jobs, watch)
    for plan, _ in planned:
        save_plan(plan, runs)
    if as_json:
        typer.echo(json.dumps([asdict(outcome) for outcome in outcomes]))
    else:
        _print_outcomes(outcomes, time.perf_counter() - started)
        if tables:
            _show_tables([plan for plan, _ in planned])
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _print_outcomes(outcomes: "list[Outcome]", seconds: float) -> None:
    counts = {s: sum(o.state == s for o in outcomes) for s in ("done", "skipped", "failed")}
    text = f"{counts['done']} run in {seconds:.0f} s, {counts['skipped']} already done, {counts['failed']} failed"
    typer.echo(text, err=True)
    for outcome in outcomes:
        if outcome.state == "failed":
            typer.echo(f"failed: {outcome.run_id}: {outcome.why}", err=True)


def _numbers(option: str, text: str) -> list[float]:
    from drrepro.errors import UsageError

    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError:
        raise UsageError(f"{option} {text}: needs numbers separated by commas") from None


@report_app.command("tables")
def report_tables(
    results: Results = Path("results"), as_json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Print Tables 1-3 with paper, ours and difference; write csv, md and tex, and the records behind them.

    Example: drrepro report tables --results results
    """
    _show_tables(_plans(), results=results, as_json=as_json, quiet=quiet)


@report_app.command("figures")
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


def _plans() -> "list[Plan]":
    from drrepro.config import runs_folder
    from drrepro.errors import UsageError
    from drrepro.experiments.plan import load_plans

    plans = load_plans(runs_folder())
    if not plans:
        raise UsageError(f"{runs_folder()}: no sweep was run here; try `drrepro sweep all`, or set DRREPRO_RUNS")
    return plans


def _show_tables(
    plans: "list[Plan]",
    results: Path | None = None,
    as_json: bool = False,
    quiet: bool = False,
    print_only: bool = False,
) -> None:
    from drrepro.config import runs_folder
    from drrepro.console import print_plain, print_table
    from drrepro.report import tables

    runs = runs_folder()
    built = tables.build_tables(plans, runs)
    plain = [(p, tables.plain_table(p, tables.records_of(p, runs))) for p in plans if p.kind in ("nms", "grid")]
    paths: list[Path] = []
    if results is not None:
        paths = tables.write_tables(built, results) + tables.copy_records(plans, runs, results)
        for plan, frame in plain:
            paths += tables.write_plain(plan, frame, results)
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


@data_app.command("make")
def data_make(
    names: Annotated[list[str] | None, typer.Argument(help="digits, letters (default: both).")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Images of a split at most, for a quick look.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the embedded data sets to $DRREPRO_DATA, unless they are there and whole.

    Example: drrepro data make digits
    """
    from drrepro.config import data_folder
    from drrepro.console import progress
    from drrepro.data import embedded

    made = {}
    with progress(quiet) as report:
        for name in names or list(embedded.WRITERS):
            made[name] = embedded.make_embedded(name, data_folder(), _stage(report, f"data {name}"), limit)
    if as_json:
        typer.echo(json.dumps(made))
        return
    for name, digest in made.items():
        known = "as published" if digest == embedded.PUBLISHED[name] else "NOT the published set: see the README"
        typer.echo(f"{data_folder() / name}  sha256 {digest[:16]}  {known}")


@data_app.command("list")
def data_list(as_json: Json = False, debug: Debug = False) -> None:
    """List the data sets that can be trained on, and where they are.

    Example: drrepro data list
    """
    from drrepro.config import config_folder, data_folder

    names = sorted(path.stem for path in (config_folder() / "data").glob("*.yaml"))
    found = {name: str(data_folder() / name) if (data_folder() / name).is_dir() else None for name in names}
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, path in found.items():
        made = "embedded: drrepro data make" if name in ("digits", "letters") else "yours: give its keys, see conf/data"
        typer.echo(f"data={name:12} {path or made}")


def _stage(report: Callable[..., None], stage: str) -> Callable[[int, int], None]:
    return lambda done, total: report(stage, done, total, {})


@bench_app.command("evaluation")
def bench_evaluation(
    overrides: Overrides = None, as_json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Time all score thresholds from one checkpoint against evaluating it at one.

    Example: drrepro bench evaluation weights=run:digits-dr-128-s0-1a2b3c4d
    """
    from drrepro.bench.evaluation import bench
    from drrepro.config import compose, data_folder, runs_folder
    from drrepro.console import print_plain, progress

    with progress(quiet) as report:
        frame = bench(compose(overrides or []).weights, runs_folder(), data_folder(), _stage(report, "bench"))
    if as_json:
        typer.echo(frame.to_json(orient="records"))
    else:
        print_plain("all score thresholds against one, medians", frame)
