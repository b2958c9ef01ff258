"""drrepro data: make, fetch, check and list data sets."""

import json
from typing import Annotated

import typer

from drrepro.cli.lazy import lazily
from drrepro.cli.options import ConfigDir, Output, Overrides, command
from drrepro.progress import stage

with lazily():
    from drrepro import config, console
    from drrepro.data import check, download, embedded, published

app = typer.Typer(help="Data sets: make the embedded ones, fetch the published ones, check any.", no_args_is_help=True)


@command(app, "make")
def data_make(
    out: Output,
    names: Annotated[list[str] | None, typer.Argument(help="digits, letters (default: both).")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Images of a split at most, for a quick look.")] = None,
) -> None:
    """Write the embedded data sets to $DRREPRO_DATA, unless they are there and whole.

    Example: drrepro data make digits
    """
    made, folder = {}, config.data_folder()
    with console.progress(out.quiet) as report:
        for name in names or embedded.NAMES:
            made[name] = embedded.make_embedded(name, folder, stage(report, f"data {name}"), limit)
    if out.as_json:
        typer.echo(json.dumps(made))
        return
    for name, digest in made.items():
        other = "limited" if limit else "NOT the published set: see docs/pages/reading.md"
        known = "as published" if digest == embedded.PUBLISHED[name] else other
        typer.echo(f"{folder / name}  sha256 {digest[:16]}  {known}")


@command(app, "fetch")
def data_fetch(
    out: Output,
    name: Annotated[
        str, typer.Argument(help="coco2017, coco2017_testdev (test images, beside coco2017), voc2007 or bccd.")
    ],
    mirror: Annotated[
        str | None,
        typer.Option(envvar="DRREPRO_MIRROR", help="Address that replaces the official host, http:// included."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the archives once they are unpacked.")] = False,
) -> None:
    """Download a published data set to $DRREPRO_DATA, check its archives and unpack them.

    What is there is not fetched again; after a break the same command goes on.

    Disk: 41 GB for coco2017 (20 at the end), 13 for coco2017_testdev, 2 for voc2007, 0.1 for bccd.

    Example: drrepro data fetch coco2017 --mirror https://s3.amazonaws.com/images.cocodataset.org
    """
    with console.progress(out.quiet) as report:
        archives = download.fetch(name, config.data_folder(), mirror, keep, report)
    if out.as_json:
        typer.echo(json.dumps(archives))
        return
    for archive, state in archives.items():
        typer.echo(f"{archive:28} {state}")
    folder = config.data_folder() / published.FETCHED[name][0]
    typer.echo(f"{folder}; look at every image with `drrepro data check {name}`")


@command(app, "check")
def data_check(
    out: Output,
    name: Annotated[str, typer.Argument(help="A data option, see drrepro data list.")],
    overrides: Overrides = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not decode the images, read their sizes only.")] = False,
    config_dir: ConfigDir = None,
) -> None:
    """Count images and objects, and look for missing or unreadable images, wrong sizes and wrong boxes.

    Exits with 1 if anything is wrong.

    Example: drrepro data check voc_custom data.root=mine --quick
    """
    composed = config.compose([f"data={name}", *(overrides or [])], config_dir)
    with console.progress(out.quiet) as report:
        checks = check.check_data(composed.data, config.data_folder(), quick, report)
    if out.as_json:
        typer.echo(json.dumps(checks))
    else:
        console.print_checks(checks)
    if any(lines for found in checks.values() for lines in found["problems"].values()):
        raise typer.Exit(1)


@command(app, "list")
def data_list(out: Output) -> None:
    """List the data sets that can be trained on, and where they are.

    Example: drrepro data list
    """
    folder, names = config.data_folder(), config.options("data")
    found = {name: str(folder / name) if (folder / name).is_dir() else None for name in names}
    if out.as_json:
        typer.echo(json.dumps(found))
        return
    for name, path in found.items():
        made = "embedded: drrepro data make" if name in embedded.NAMES else "yours: give its keys, see conf/data"
        made = f"published: drrepro data fetch {name}" if name in published.FETCHED else made
        typer.echo(f"data={name:16} {path or made}")
