"""drrepro theory: checks of what the paper derives."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from drrepro.cli.options import Debug, Json, Quiet, Results

app = typer.Typer(help="Checks of what the paper derives.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Check what the paper derives."""


@app.command("gradient")
def gradient(
    h: Annotated[list[float] | None, typer.Option(help="lambda- = 0.1 / ln(h); repeat for several.")] = None,
    results: Results = Path("results"),
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
