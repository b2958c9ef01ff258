"""The commands at the top, and the groups below them."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from drrepro.cli import bench, data, doctor, predict, report, runs, sweep, theory
from drrepro.cli.options import ConfigDir, Debug, DryRun, Json, Overrides, Quiet

if TYPE_CHECKING:
    from drrepro.schema import Config

HELP = """Check the claims of the DR loss paper: does a RetinaNet detect better than with focal loss when the
distribution of foreground scores is ranked above that of background scores?

Positional arguments are Hydra overrides; the keys and their sources are in drrepro/schema.py, the choices in conf/.
Data lie in $DRREPRO_DATA (default ./data), runs in $DRREPRO_RUNS (default ./runs)."""

app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
for name, group in (
    ("sweep", sweep.app),
    ("report", report.app),
    ("runs", runs.app),
    ("data", data.app),
    ("bench", bench.app),
    ("theory", theory.app),
):
    app.add_typer(group, name=name)


app.command("predict")(predict.predict)
app.command("doctor")(doctor.doctor)


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
    dry_run: DryRun = False,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train one detector and evaluate it; go on from its checkpoint if there is one.

    Example: drrepro train loss=dr data=digits seed=1
    On GPUs: torchrun --nproc-per-node 8 -m drrepro train experiment=table1 runtime.workers=4
    """
    from drrepro.cli.estimate import print_scaling, show_estimate
    from drrepro.config import compose
    from drrepro.distributed import rank

    config = compose(overrides or [], config_dir)
    if rank() == 0 and not quiet:
        print_scaling([config])
    if dry_run:
        show_estimate([config], 1, as_json, quiet)
    else:
        _run(config, as_json, quiet)


@app.command()
def evaluate(
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Evaluate the detector of a run, on other data or with other evaluation keys than its own, or that of a file.

    A file is a checkpoint of maskrcnn-benchmark, torchvision or drrepro; the overrides say what model it holds:
    weights=dr_R50.pth model=retinanet_r50_caffe data=coco_custom data.test_json=...

    Example: drrepro evaluate weights=run:digits-dr-128-s0-1a2b3c4d evaluation.nms_iou=0.6
    """
    from drrepro.config import compose, for_evaluation, from_dict, has_weights_file, runs_folder
    from drrepro.errors import UsageError
    from drrepro.experiments.records import require_record

    given = overrides or []
    composed = compose([*given, "schedule.steps=0"])
    weights = composed.weights
    if has_weights_file(composed):
        _run(composed, as_json, quiet)
        return
    if not weights.startswith("run:"):
        raise UsageError("weights=run:ID is needed, the name of a folder in the runs folder, or weights=PATH, a file")
    directory = runs_folder() / weights.removeprefix("run:")
    record = require_record(directory)
    _run(for_evaluation(from_dict(record["config"], directory), given), as_json, quiet)


def _run(config: "Config", as_json: bool, quiet: bool) -> None:
    from drrepro.config import data_folder, run_id, runs_folder
    from drrepro.console import print_metrics, progress
    from drrepro.distributed import rank
    from drrepro.experiments.run import run

    with progress(quiet or rank() > 0) as report:
        record = run(config, runs_folder(), data_folder(), report)
    if rank() > 0:
        return
    if as_json:
        typer.echo(json.dumps(record))
    else:
        print_metrics(record, runs_folder() / run_id(config))
