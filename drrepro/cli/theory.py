"""drrepro theory: checks of what the paper derives."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from drrepro.cli.lazy import lazily
from drrepro.cli.options import REPRODUCED, Output, Results, command
from drrepro.progress import stage

with lazily():
    from drrepro import console, errors, files
    from drrepro.theory import convergence, gradient, scorer

app = typer.Typer(help="Checks of what the paper derives.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Check what the paper derives."""


@command(app, "gradient")
def theory_gradient(
    out: Output,
    h: Annotated[list[float] | None, typer.Option(help="lambda- = 0.1 / ln(h); repeat for several.")] = None,
    results: Results = REPRODUCED,
) -> None:
    """Check Sec. 1's gradient against autograd and finite differences, and draw it.

    Example: drrepro theory gradient --h 2 --h 3.5 --h 10
    """
    import pandas as pd

    hs = h or [2.0, 3.5, 10.0]
    if min(hs) <= 1:
        raise errors.UsageError(f"--h {min(hs):g}: must exceed 1, as lambda- = 0.1 / ln(h)")
    rows = [asdict(gradient.check(value)) for value in hs]
    path = files.write_png(gradient.draw(hs), results / "theory" / "gradient.png")
    if out.as_json:
        typer.echo(json.dumps({"formula": gradient.FORMULA, "deviations": rows, "figure": str(path)}))
    elif not out.quiet:
        typer.echo(gradient.FORMULA)
        title = "largest deviation of the closed form, relative to the largest gradient"
        console.print_plain(title, pd.DataFrame(rows))
        worst = max(max(row["autograd"], row["finite_differences"]) for row in rows)
        typer.echo(f"largest of all: {worst:.1e}\n{path}")


@command(app, "convergence")
def theory_convergence(
    out: Output,
    seed: Annotated[int, typer.Option(min=0, help="Of the images, the points and the mini-batches.")] = 0,
    results: Results = REPRODUCED,
) -> None:
    """Run SGD on the DR loss of a small scorer, and compare its gradients with the bound of Theorem 1.

    Writes theory/convergence.csv and .png. A bound or assumption that fails is reported; it is no error.

    Example: drrepro theory convergence --seed 1
    """
    problem = scorer.generate(seed=seed)
    with console.progress(out.quiet) as report:
        constants = convergence.measure(problem, seed)
        frame = convergence.check(problem, constants, seed=seed, progress=stage(report, "steps"))
    table = results / "theory" / "convergence.csv"
    files.write_text(table, frame.to_csv(index=False, float_format="%.6g"))
    picture = files.write_png(convergence.draw(frame), table.with_suffix(".png"))
    verdicts = convergence.verdicts(frame, constants)
    if out.as_json:
        found = {"formula": convergence.FORMULA, "constants": asdict(constants), "verdicts": verdicts}
        rows = json.loads(frame.to_json(orient="records", double_precision=15))
        typer.echo(json.dumps({**found, "rows": rows, "files": [str(table), str(picture)]}))
    elif not out.quiet:
        typer.echo(convergence.FORMULA)
        images, anchors, _ = problem.features.shape
        what = f"{images} images, {anchors} anchors, {problem.classes} classes, {problem.start().numel()} parameters"
        repeated = f"mean and largest of {convergence.REPETITIONS} repetitions"
        console.print_plain(f"{what}; L(theta_0) = {constants.start:.4g}; {repeated}", frame)
        typer.echo("\n".join([*verdicts, str(table), str(picture)]))
