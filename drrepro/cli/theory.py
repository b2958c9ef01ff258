"""drrepro theory: checks of what the paper derives."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from drrepro.cli.options import REPRODUCED, Debug, Json, Quiet, Results

app = typer.Typer(help="Checks of what the paper derives.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Check what the paper derives."""


@app.command("gradient")
def gradient(
    h: Annotated[list[float] | None, typer.Option(help="lambda- = 0.1 / ln(h); repeat for several.")] = None,
    results: Results = REPRODUCED,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check Sec. 1's gradient against autograd and finite differences, and draw it.

    Example: drrepro theory gradient --h 2 --h 3.5 --h 10
    """
    import pandas as pd

    from drrepro.console import print_plain
    from drrepro.errors import UsageError
    from drrepro.files import atomic_write
    from drrepro.theory.gradient import FORMULA, check, draw

    hs = h or [2.0, 3.5, 10.0]
    if min(hs) <= 1:
        raise UsageError(f"--h {min(hs):g}: must exceed 1, as lambda- = 0.1 / ln(h)")
    rows = [asdict(check(value)) for value in hs]
    path = results / "theory" / "gradient.png"
    figure = draw(hs)
    atomic_write(path, lambda file: figure.savefig(file, format="png", dpi=150))
    if as_json:
        typer.echo(json.dumps({"formula": FORMULA, "deviations": rows, "figure": str(path)}))
    elif not quiet:
        typer.echo(FORMULA)
        print_plain("largest deviation of the closed form, relative to the largest gradient", pd.DataFrame(rows))
        worst = max(max(row["autograd"], row["finite_differences"]) for row in rows)
        typer.echo(f"largest of all: {worst:.1e}\n{path}")


@app.command("convergence")
def convergence(
    seed: Annotated[int, typer.Option(min=0, help="Of the images, the points and the mini-batches.")] = 0,
    results: Results = REPRODUCED,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run SGD on the DR loss of a small scorer, and compare its gradients with the bound of Theorem 1.

    Writes theory/convergence.csv and .png. A bound or assumption that fails is reported; it is no error.

    Example: drrepro theory convergence --seed 1
    """
    from drrepro.cli.data import stage
    from drrepro.console import print_plain, progress
    from drrepro.files import atomic_write, write_text
    from drrepro.theory.convergence import FORMULA, REPETITIONS, check, draw, measure, verdicts
    from drrepro.theory.scorer import generate

    problem = generate(seed=seed)
    with progress(quiet) as report:
        constants = measure(problem, seed)
        frame = check(problem, constants, seed=seed, progress=stage(report, "steps"))
    table, picture = (results / "theory" / f"convergence.{suffix}" for suffix in ("csv", "png"))
    write_text(table, frame.to_csv(index=False, float_format="%.6g"))
    figure = draw(frame)
    atomic_write(picture, lambda file: figure.savefig(file, format="png", dpi=150))
    found = {"formula": FORMULA, "constants": asdict(constants), "verdicts": verdicts(frame, constants)}
    if as_json:
        rows = json.loads(frame.to_json(orient="records", double_precision=15))
        typer.echo(json.dumps({**found, "rows": rows, "files": [str(table), str(picture)]}))
    elif not quiet:
        typer.echo(FORMULA)
        images, anchors, _ = problem.features.shape
        what = f"{images} images, {anchors} anchors, {problem.classes} classes, {problem.start().numel()} parameters"
        print_plain(f"{what}; L(theta_0) = {constants.start:.4g}; mean and largest of {REPETITIONS} repetitions", frame)
        typer.echo("\n".join([*found["verdicts"], str(table), str(picture)]))
