"""The options that commands share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass
class State:
    """What `main` must know of the command line when an error reaches it."""

    debug: bool = False


state = State()


def _set_debug(value: bool) -> bool:
    state.debug |= value
    return value


Overrides = Annotated[list[str] | None, typer.Argument(help="Hydra overrides, such as loss=dr data=digits seed=1.")]
ConfigDir = Annotated[Path | None, typer.Option(help="A folder of further options, laid out like conf/.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", callback=_set_debug)]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs at a time; each gets its share of the cores.")]
Tables = Annotated[bool, typer.Option(help="Print the tables at the end.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print runs, steps, images, time (from a short probe) and disk; run nothing.")
]
Results = Annotated[Path, typer.Option(help="Where to write, under a folder for each data set.")]
REPRODUCED = Path("reproduced")  # a user's own; results/ is what the repository publishes
Paper = Annotated[
    bool, typer.Option("--paper", help="The paper's numbers also beside data that stand for none of its.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run again what failed before.")]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop everything at the first failure.")]
