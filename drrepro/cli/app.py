"""The commands at the top, and the groups below them."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from drrepro import __version__
from drrepro.cli import bench, data, doctor, predict, report, runs, sweep, theory
from drrepro.cli.lazy import lazily
from drrepro.cli.options import ConfigDir, DryRun, Output, Overrides, command

with lazily():
    from drrepro import config, console, distributed, errors
    from drrepro.cli import estimate
    from drrepro.experiments import run
    from drrepro.runs import records

if TYPE_CHECKING:
    from drrepro.schema import Config

HELP = """Check the claims of the DR loss paper: does a RetinaNet detect better than with focal loss when the
distribution of foreground scores is ranked above that of background scores?

Positional arguments are Hydra overrides; the keys and their sources are in drrepro/schema, the choices in conf/.
Data lie in $DRREPRO_DATA (default ./data), runs in $DRREPRO_RUNS (default ./runs)."""

app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
GROUPS = {"sweep": sweep, "report": report, "runs": runs, "data": data, "bench": bench, "theory": theory}
for name, group in GROUPS.items():
    app.add_typer(group.app, name=name)
command(app, "predict")(predict.predict)
command(app, "doctor")(doctor.doctor)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Print the version if asked to."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@command(app)
def train(out: Output, overrides: Overrides = None, dry_run: DryRun = False, config_dir: ConfigDir = None) -> None:
    """Train one detector and evaluate it; go on from its checkpoint if there is one.

    Example: drrepro train loss=dr data=digits seed=1
    On GPUs: torchrun --nproc-per-node 8 -m drrepro train experiment=table1 runtime.workers=4
    """
    composed = config.compose(overrides or [], config_dir)
    if distributed.rank() == 0 and not out.quiet:
        estimate.print_scaling([composed])
    if dry_run:
        estimate.show_estimate([composed], 1, out)
    else:
        _run(composed, out)


@command(app)
def evaluate(out: Output, overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Evaluate the detector of a run, on other data or with other evaluation keys than its own, or that of a file.

    A file is a checkpoint of maskrcnn-benchmark, torchvision or drrepro; the overrides say what model it holds:
    weights=dr_R50.pth model=retinanet_r50_caffe data=coco_custom data.test_json=...

    Example: drrepro evaluate weights=run:digits-dr-128-s0-1a2b3c4d evaluation.nms_iou=0.6
    """
    given = overrides or []
    composed = config.compose([*given, "schedule.steps=0"], config_dir)
    weights = composed.weights
    if config.has_weights_file(composed):
        _run(composed, out)
        return
    if not weights.startswith("run:"):
        raise errors.UsageError(
            "weights=run:ID is needed, the name of a folder in the runs folder, or weights=PATH, a file"
        )
    directory = config.runs_folder() / weights.removeprefix("run:")
    record = records.require_record(directory)
    _run(config.for_evaluation(config.from_dict(record["config"], directory), given, config_dir), out)


def _run(composed: "Config", out: Output) -> None:
    rank = distributed.rank()
    with console.progress(out.quiet or rank > 0) as report:
        record = run.run(composed, config.runs_folder(), config.data_folder(), report)
    if rank > 0:
        return
    if out.as_json:
        typer.echo(json.dumps(record))
    else:
        console.print_metrics(record, config.runs_folder() / config.run_id(composed))
