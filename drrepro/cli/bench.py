"""drrepro bench: the measurements that the documentation quotes."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drrepro.cli.lazy import lazily
from drrepro.cli.options import REPRODUCED, ConfigDir, Output, Overrides, Results, command
from drrepro.progress import stage

with lazily():
    from drrepro import composing, config, console, files
    from drrepro.bench import bootstrap, coco, estimate, evaluation, losses, pipeline, step, sweep
    from drrepro.experiments import device
    from drrepro.report import calibration, written

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(help="Measurements that the documentation quotes.", no_args_is_help=True)
Repeats = Annotated[int, typer.Option(min=1, help="Measured repetitions of each.")]


@command(app, "evaluation")
def bench_evaluation(
    out: Output,
    overrides: Overrides = None,
    coco_size: Annotated[
        bool, typer.Option("--coco", help="Instead 5,000 images and 500,000 detections, beside other evaluators.")
    ] = False,
    config_dir: ConfigDir = None,
) -> None:
    """Time all score thresholds from one checkpoint against evaluating it at one.

    Of the run that the overrides configure, or of weights=run:ID. With --coco: on one core the twelve numbers, and with
    them six thresholds and the kept matches, beside pycocotools and, where it is installed, hotcoco; needs no run.

    Example: drrepro bench evaluation data=digits loss=dr
    """
    if coco_size:
        _one_thread()
        with console.progress(out.quiet) as report:
            frame = coco.bench(stage(report, "bench"))
        _show("evaluation at the size of COCO, one core", frame, out)
        return
    composed = config.compose(overrides or ["data=digits", "loss=dr"], config_dir)
    weights = composed.weights if composed.weights != "none" else f"run:{config.run_id(composed)}"
    with console.progress(out.quiet) as report:
        frame = evaluation.bench(weights, config.runs_folder(), config.data_folder(), stage(report, "bench"))
    _show("all score thresholds against one, medians", frame, out)


@command(app, "input")
def bench_input(
    out: Output,
    overrides: Overrides = None,
    images: Annotated[int, typer.Option(min=1, help="Training images to read, at most.")] = 100,
    repeats: Repeats = 5,
    config_dir: ConfigDir = None,
) -> None:
    """Images per second of one worker of the input pipeline, against plain decoding and resizing of the same files.

    Example: drrepro bench input data=digits input.scale=400
    """
    composed = config.compose(overrides or [], config_dir)
    with console.progress(out.quiet) as report:
        frame = pipeline.bench(composed, config.data_folder(), images, repeats, stage(report, "bench"))
    _show("images per second, medians; ratio to plain decoding and resizing", frame, out)


@command(app, "bootstrap")
def bench_bootstrap(out: Output) -> None:
    """Time 1,000 resamples of 500 images on one core, against evaluating each resampled set.

    Example: drrepro bench bootstrap
    """
    _one_thread()
    with console.progress(out.quiet) as report:
        frame = bootstrap.bench(stage(report, "bench"))
    _show("AP of resampled test sets, one core", frame, out)


@command(app, "sweep")
def bench_sweep(
    out: Output,
    overrides: Overrides = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs of a sweep.")] = 5,
) -> None:
    """Time tiny runs in a sweep, one at a time, against the same runs in one process: what the launcher costs.

    Example: drrepro bench sweep launcher=slurm launcher.cluster=local
    """
    configs = [config.compose([*sweep.TINY, *(overrides or []), f"seed={seed}"]) for seed in range(runs)]
    with console.progress(out.quiet) as report:
        frame = sweep.bench(configs, config.data_folder(), stage(report, "bench"))
    _show("seconds a run", frame, out)


@command(app, "estimate")
def bench_estimate(out: Output) -> None:
    """What --dry-run says of four runs against what they take, in two minutes: a factor of 1.5 is good.

    Example: drrepro bench estimate
    """
    with console.progress(out.quiet) as report:
        frame = estimate.bench(stage(report, "bench"))
    _show("seconds of a run, estimated and measured", frame, out)


@command(app, "losses")
def bench_losses(
    out: Output,
    results: Results = REPRODUCED,
    repeats: Repeats = 5,
    compiled: Annotated[
        bool, typer.Option(help="Also what torch.compile makes of the formulas (needs a compiler).")
    ] = False,
    on: Annotated[str, typer.Option("--device", help="cpu, or cuda.")] = "cpu",
) -> None:
    """Time the losses against the naive formulation and torchvision's, over sizes, on one and on all threads.

    Example: drrepro bench losses --compiled
    """
    where = device.pick_device(on)
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # PyTorch's profiler, which measures the memory, talks otherwise
    threads = sorted({1, os.cpu_count() or 1}) if where.type == "cpu" else [1]
    with console.progress(out.quiet) as report:
        frame = losses.bench(list(losses.SIZES), threads, repeats, compiled, stage(report, "bench"), where)
    table = results / "bench" / "losses.csv"
    files.write_text(table, frame.to_csv(index=False, float_format="%.4g"))
    files.write_png(losses.draw(frame), table.with_suffix(".png"))
    _show("medians; memory in multiples of the logits, the gradient included", frame, out, table)


@command(app, "step")
def bench_step(
    out: Output,
    overrides: Overrides = None,
    results: Results = REPRODUCED,
    repeats: Repeats = 15,
    config_dir: ConfigDir = None,
) -> None:
    """Time a training step with each loss against the bare network's and that of torchvision's RetinaNet, on noise.

    Overrides may have several values, a loss among them. The last columns are ratios to these and to the first loss.
    In bench/step.csv rows of other networks, scales, precisions, devices or threads stay.

    Example: drrepro bench step loss=focal,dr,ap schedule.precision=fp32,bf16 input.scale=128,256
    """
    given = overrides or []
    points = composing.expand(given if any(o.startswith("loss=") for o in given) else [*given, "loss=focal,dr"])
    groups = step.group([config.compose(point, config_dir) for point in points])
    with console.progress(out.quiet) as report:
        frame = step.bench(groups, repeats, device.pick_device(groups[0][0].runtime.device), stage(report, "bench"))
    table = results / "bench" / "step.csv"
    files.write_text(table, step.renewed(table, frame).to_csv(index=False, float_format="%.4g"))
    _show("a training step; medians, and ratios to the peers of the same turn", frame, out, table)


@command(app, "verdicts")
def bench_verdicts(
    out: Output,
    results: Annotated[Path, typer.Option(help="The results that are asked, and written to.")] = REPRODUCED,
) -> None:
    """How far verdicts can be trusted: what intervals cover, and how often a verdict is false where nothing differs.

    Of the spread that the differences in these results have, and of the runs of the study "same"; trains nothing.

    Example: drrepro bench verdicts --results results
    """
    with console.progress(out.quiet) as report:
        frame = calibration.calibrate(written.read_kept(results), stage(report, "bench"))
    paths = written.write_files(written.calibration_files(frame), results)
    _show("verdicts, per cent", frame, out, *paths)


def _one_thread() -> None:
    for library in ("OMP", "OPENBLAS", "MKL", "RAYON"):  # read once, when numpy is imported
        os.environ[f"{library}_NUM_THREADS"] = "1"


def _show(title: str, frame: "pd.DataFrame", out: Output, *written: Path) -> None:
    if out.as_json:
        typer.echo(frame.to_json(orient="records"))
    else:
        console.print_plain(title, frame)
        for path in written:
            typer.echo(path)
