"""drrepro bench: the measurements that the README quotes."""

import typer

from drrepro.cli.data import stage
from drrepro.cli.options import Debug, Json, Overrides, Quiet

app = typer.Typer(help="Measurements that the README quotes.", no_args_is_help=True)


@app.command("evaluation")
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
        frame = bench(compose(overrides or []).weights, runs_folder(), data_folder(), stage(report, "bench"))
    if as_json:
        typer.echo(frame.to_json(orient="records"))
    else:
        print_plain("all score thresholds against one, medians", frame)
