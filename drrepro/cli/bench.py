"""drrepro bench: the measurements that the README quotes."""

from typing import Annotated

import typer

from drrepro.cli.data import stage
from drrepro.cli.options import REPRODUCED, Debug, Json, Overrides, Quiet, Results

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


@app.command("input")
def bench_input(
    overrides: Overrides = None,
    images: Annotated[int, typer.Option(min=1, help="Training images to read, at most.")] = 100,
    repeats: Annotated[int, typer.Option(min=1, help="Measured repetitions of each.")] = 5,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Images per second of one worker of the input pipeline, against plain decoding and resizing of the same files.

    Example: drrepro bench input data=digits input.scale=400
    """
    from drrepro.bench.input import bench
    from drrepro.config import compose, data_folder
    from drrepro.console import print_plain, progress

    config = compose(overrides or [])
    with progress(quiet) as report:
        frame = bench(config, data_folder(), images, repeats, stage(report, "bench"))
    if as_json:
        typer.echo(frame.to_json(orient="records"))
    else:
        print_plain("images per second, medians; ratio to plain decoding and resizing", frame)


@app.command("bootstrap")
def bench_bootstrap(as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Time 1,000 resamples of 500 images on one core, against evaluating each resampled set.

    Example: drrepro bench bootstrap
    """
    import os

    for library in ("OMP", "OPENBLAS", "MKL"):  # read once, when numpy is imported
        os.environ[f"{library}_NUM_THREADS"] = "1"
    from drrepro.bench.bootstrap import bench
    from drrepro.console import print_plain, progress

    with progress(quiet) as report:
        frame = bench(stage(report, "bench"))
    if as_json:
        typer.echo(frame.to_json(orient="records"))
    else:
        print_plain("AP of resampled test sets, one core", frame)


@app.command("sweep")
def bench_sweep(
    overrides: Overrides = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs of a sweep.")] = 5,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Time tiny runs in a sweep, one at a time, against the same runs in one process: what the launcher costs.

    Example: drrepro bench sweep launcher=slurm launcher.cluster=local
    """
    from drrepro.bench.sweep import TINY, bench
    from drrepro.config import compose, data_folder
    from drrepro.console import print_plain, progress

    configs = [compose([*TINY, *(overrides or []), f"seed={seed}"]) for seed in range(runs)]
    with progress(quiet) as report:
        frame = bench(configs, data_folder(), stage(report, "bench"))
    if as_json:
        typer.echo(frame.to_json(orient="records"))
    else:
        print_plain("seconds a run", frame)


@app.command("estimate")
def bench_estimate(as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """What --dry-run says of four runs against what they take, in two minutes: a factor of 1.5 is good.

    Example: drrepro bench estimate
    """
    from drrepro.bench.estimate import bench
    from drrepro.console import print_plain, progress

    with progress(quiet) as report:
        frame = bench(stage(report, "bench"))
    if as_json:
        typer.echo(frame.to_json(orient="records"))
    else:
        print_plain("seconds of a run, estimated and measured", frame)


@app.command("losses")
def bench_losses(
    results: Results = REPRODUCED,
    repeats: Annotated[int, typer.Option(min=1, help="Measured repetitions of each.")] = 5,
    compiled: Annotated[
        bool, typer.Option(help="Also what torch.compile makes of the formulas (needs a compiler).")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Time DR and focal loss against the naive formulation and torchvision's, over sizes, on one and on all threads.

    Example: drrepro bench losses --compiled
    """
    import os

    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # PyTorch's profiler, which measures the memory, talks otherwise
    from drrepro.bench.losses import SIZES, bench, draw
    from drrepro.console import print_plain, progress
    from drrepro.files import atomic_write, write_text

    threads = sorted({1, os.cpu_count() or 1})
    with progress(quiet) as report:
        frame = bench(list(SIZES), threads, repeats, compiled, stage(report, "bench"))
    folder = results / "bench"
    write_text(folder / "losses.csv", frame.to_csv(index=False, float_format="%.4g"))
    figure = draw(frame)
    atomic_write(folder / "losses.png", lambda file: figure.savefig(file, format="png", dpi=150))
    if as_json:
        typer.echo(frame.to_json(orient="records"))
    else:
        print_plain("medians; memory in multiples of the logits, the gradient included", frame)
        typer.echo(folder / "losses.csv")
