"""What --dry-run prints."""

import json
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

import typer

from drrepro.cli.lazy import lazily
from drrepro.cli.options import Output

with lazily():
    from drrepro import config, console
    from drrepro.experiments import forecast
    from drrepro.report import decision

if TYPE_CHECKING:
    import pandas as pd

    from drrepro.experiments.forecast import Forecast
    from drrepro.schema import Config


def show_estimate(configs: "list[Config]", jobs: int, out: Output, seeds: "pd.DataFrame | None" = None) -> None:
    """Probe and print what the runs will cost, and the ``seeds`` that a difference needs, if that was asked."""
    with console.progress(out.quiet) as report:
        folders = config.runs_folder(), config.data_folder()
        found = forecast.forecast(configs, *folders, jobs, lambda i, n: report("probe", i, n, {}))
    if out.as_json:
        costs = [asdict(row) for row in found.costs]
        typer.echo(json.dumps(costs if seeds is None else {"runs": costs, "seeds": seeds.to_dict("records")}))
    else:
        _print(found, jobs)
        if seeds is not None:
            title = f"seeds for a difference in AP, seen in {decision.POWER:.0%} of cases; spread of the runs here"
            console.print_plain(title, seeds)


def _print(found: "Forecast", jobs: int) -> None:
    import pandas as pd

    rows = found.costs
    frame = pd.DataFrame([asdict(row) for row in rows])
    frame["seconds"] = [str(timedelta(seconds=round(s))) for s in frame["seconds"]]
    frame["disk_mb"] = [f"{size:.0f}" for size in frame["disk_mb"]]
    names = {
        "run_id": "run",
        "images_trained": "trained on",
        "images_tested": "tested on",
        "seconds": "time",
        "disk_mb": "MB",
    }
    console.print_plain(
        "images, steps and time to go; a few images timed on this machine, nothing run", frame.rename(columns=names)
    )
    seconds, disk = sum(row.seconds for row in rows), sum(row.disk_mb for row in rows)
    threads = f"{found.threads} thread{'s' * (found.threads > 1)} each"
    typer.echo(
        f"{len(rows)} runs: {timedelta(seconds=round(seconds))} one after the other, {threads}, {disk / 1e3:.2f} GB"
    )
    if jobs > 1:
        shared = timedelta(seconds=round(seconds / min(jobs, len(rows))))
        typer.echo(f"--jobs {jobs}: {shared} on cores that do not slow each other down; on one GPU as without")
    if found.scatter > forecast.SCATTERED:
        typer.echo(
            f"the repeats scatter by a factor of {found.scatter:.1f}: something else uses this machine, and the runs "
            "will take longer if it goes on",
            err=True,
        )
    if any(row.images_tested is None for row in rows):
        typer.echo("the data are not here yet: evaluation is left out, 80 classes are assumed")


def print_scaling(configs: "list[Config]") -> None:
    """Say, once each, where a schedule was fitted to other images per step than its recipe's."""
    for note in sorted({note for one in configs if one.schedule.steps and (note := config.scaling_note(one.schedule))}):
        typer.echo(note, err=True)
