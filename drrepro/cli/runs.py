"""drrepro runs: what was run, what is running, and how far it is."""

import json
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from drrepro.cli.lazy import lazily
from drrepro.cli.options import Output, command

with lazily():
    from drrepro import config, console, errors, text
    from drrepro.runs import records, states

if TYPE_CHECKING:
    from rich.table import Table

    from drrepro.runs.states import RunState

app = typer.Typer(help="Runs: their states, their records, their end.", no_args_is_help=True)
RunId = Annotated[str, typer.Argument(help="The name of a folder of runs.")]


@command(app, "list")
def runs_list(
    out: Output,
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it, every two seconds, until Ctrl-C.")] = False,
) -> None:
    """List all runs: state, age, progress, time left, AP, where.

    Example: drrepro runs list --watch
    """
    if out.as_json:
        typer.echo(json.dumps([asdict(state) for state in states.all_states(config.runs_folder())]))
    elif watch:
        _watch()
    else:
        console.print_rich(_table(states.all_states(config.runs_folder())))


def _watch() -> None:
    from rich.console import Console
    from rich.live import Live

    with suppress(KeyboardInterrupt), Live(console=Console(), auto_refresh=False) as live:
        while True:
            live.update(_table(states.all_states(config.runs_folder())), refresh=True)
            time.sleep(2)


@command(app, "show")
def runs_show(out: Output, run_id: RunId) -> None:
    """Show one run: its state, and its metrics when it is done.

    Example: drrepro runs show digits-dr-128-s0-1a2b3c4d
    """
    directory = config.runs_folder() / run_id
    if not directory.is_dir():
        raise errors.UsageError(f"{directory}: no run here; `drrepro runs list` names them")
    state, record = states.state_of(directory), records.read_record(directory)
    if out.as_json:
        typer.echo(json.dumps({**asdict(state), "record": record}))
        return
    console.print_rich(_table([state]))
    if state.why:
        typer.echo(state.why)
    if record is not None:
        console.print_metrics(record, directory)


@command(app, "rm")
def runs_rm(
    out: Output,
    run_ids: Annotated[list[str], typer.Argument(help="Names of folders of runs.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove runs with all that they hold, unless they are being carried out.

    Example: drrepro runs rm digits-dr-128-s0-1a2b3c4d --yes
    """
    removed = []
    for run_id in run_ids:
        if yes or typer.confirm(f"remove {config.runs_folder() / run_id}?", err=True):
            states.remove(config.runs_folder(), run_id)
            removed.append(run_id)
    if out.as_json:
        typer.echo(json.dumps(removed))


def _table(found: "list[RunState]") -> "Table":
    table = console.plain_table("run", "state", "age", "progress", "left", "AP", "where or why")
    for state in found:
        progress = f"{state.stage} {state.done}/{state.total}" if state.total else ""
        left = _duration(state.seconds_left) if state.seconds_left is not None else ""
        why = state.where or state.why
        age = _duration(state.age_seconds) if state.state != "new" else ""
        table.add_row(state.run_id, state.state, age, progress, left, text.percent_text(state.AP), why[:60])
    return table


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
