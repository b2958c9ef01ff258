"""drrepro data: the embedded sets."""

import json
from collections.abc import Callable
from typing import Annotated

import typer

from drrepro.cli.options import Debug, Json, Quiet
from drrepro.progress import Report

app = typer.Typer(help="The embedded data sets.", no_args_is_help=True)


@app.command("make")
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
        for name in names or embedded.NAMES:
            made[name] = embedded.make_embedded(name, data_folder(), stage(report, f"data {name}"), limit)
    if as_json:
        typer.echo(json.dumps(made))
        return
    for name, digest in made.items():
        other = "limited" if limit else "NOT the published set: see the README"
        known = "as published" if digest == embedded.PUBLISHED[name] else other
        typer.echo(f"{data_folder() / name}  sha256 {digest[:16]}  {known}")


@app.command("list")
def data_list(as_json: Json = False, debug: Debug = False) -> None:
    """List the data sets that can be trained on, and where they are.

    Example: drrepro data list
    """
    from drrepro.config import config_folder, data_folder
    from drrepro.data import embedded

    names = sorted(path.stem for path in (config_folder() / "data").glob("*.yaml"))
    found = {name: str(data_folder() / name) if (data_folder() / name).is_dir() else None for name in names}
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, path in found.items():
        made = "embedded: drrepro data make" if name in embedded.NAMES else "yours: give its keys, see conf/data"
        typer.echo(f"data={name:12} {path or made}")


def stage(report: Report, name: str) -> Callable[[int, int], None]:
    """Return a callback of (done, all) that reports under ``name``."""
    return lambda done, total: report(name, done, total, {})
