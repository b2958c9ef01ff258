"""drrepro runs: what was run, what is running, and how far it is."""

import json
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from drrepro.cli.options import Debug, Json

if TYPE_CHECKING:
    from rich.table import Table

    from drrepro.experiments.states import State

app = typer.Typer(help="Runs: their states, their records, their end.", no_args_is_help=True)
RunId = Annotated[str, typer.Argument(help="The name of a folder of runs.")]


@app.command("list")
def runs_list(
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it, every two seconds, until Ctrl-C.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List all runs: state, age, progress, time left, AP, where.

    Example: drrepro runs list --watch
    """
    from rich.console import Console
    from rich.live import Live

    from drrepro.config import runs_folder
    from drrepro.console import print_rich
    from drrepro.experiments.states import all_states

    if as_json:
        typer.echo(json.dumps([asdict(state) for state in all_states(runs_folder())]))
    elif watch:
        with suppress(KeyboardInterrupt), Live(console=Console(), auto_refresh=False) as live:
            while True:
                live.update(_table(all_states(runs_folder())), refresh=True)
                time.sleep(2)
    else:
        print_rich(_table(all_states(runs_folder())))


@app.command("show")
def runs_show(run_id: RunId, as_json: Json = False, debug: Debug = False) -> None:
    """Show one run: its state, and its metrics when it is done.

    Example: drrepro runs show digits-dr-128-s0-1a2b3c4d
    """
    from drrepro.config import runs_folder
    from drrepro.console import print_metrics, print_rich
    from drrepro.errors import UsageError
    from drrepro.experiments.records import read_record
    from drrepro.experiments.states import state_of

    directory = runs_folder() / run_id
    if not directory.is_dir():
        raise UsageError(f"{directory}: no run here; `drrepro runs list` names them")
    state, record = state_of(directory), read_record(directory)
    if as_json:
        typer.echo(json.dumps({**asdict(state), "record": record}))
        return
    print_rich(_table([state]))
    if state.why:
        typer.echo(state.why)
    if record is not None:
        print_metrics(record, directory)


@app.command("rm")
def runs_rm(
    run_ids: Annotated[list[str], typer.Argument(help="Names of folders of runs.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove runs with all that they hold, unless they are being carried out.

    Example: drrepro runs rm digits-dr-128-s0-1a2b3c4d --yes
    """
    from drrepro.config import runs_folder
    from drrepro.experiments.states import remove

    removed = []
    for run_id in run_ids:
        if yes or typer.confirm(f"remove {runs_folder() / run_id}?", err=True):
            remove(runs_folder(), run_id)
            removed.append(run_id)
    if as_json:
        typer.echo(json.dumps(removed))


def _table(states: "list[State]") -> "Table":
    from drrepro.console import plain_table

    table = plain_table("run", "state", "age", "progress", "left", "AP", "where or why")
    for state in states:
        progress = f"{state.stage} {state.done}/{state.total}" if state.total else ""
        left = _duration(state.seconds_left) if state.seconds_left is not None else ""
        score = f"{100 * state.AP:.1f}" if state.AP is not None else ""
        why = state.where or state.why
        age = _duration(state.age_seconds) if state.state != "new" else ""
        table.add_row(state.run_id, state.state, age, progress, left, score, why[:60])
    return table


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
