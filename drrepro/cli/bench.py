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

    Of the run that the overrides configure, or of weights=run:ID.

    Example: drrepro bench evaluation data=digits loss=dr
    """
    from drrepro.bench.evaluation import bench
    from drrepro.config import compose, data_folder, run_id, runs_folder
    from drrepro.console import print_plain, progress

    config = compose(overrides or ["data=digits", "loss=dr"])
    weights = config.weights if config.weights != "none" else f"run:{run_id(config)}"
    with progress(quiet) as report:
        frame = bench(weights, runs_folder(), data_folder(), stage(report, "bench"))
    if as_json:
        typer.echo(frame.to_json(orient="records"))
    else:
        print_plain("all score thresholds against one, medians", frame)
