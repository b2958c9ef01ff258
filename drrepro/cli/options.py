"""The options that commands share: a command takes a dataclass of them as one argument.

    @command(app, "list")
    def runs_list(watch: Watch = False, out: Output = Output()) -> None:

has --watch and, as options of its own, the fields of `Output`.
"""

import dataclasses
import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer


@dataclasses.dataclass
class Line:
    """What `main` must know of the command line when an error reaches it."""

    debug: bool = False


line = Line()


def _set_debug(value: bool) -> bool:
    line.debug |= value
    return value


Overrides = Annotated[list[str] | None, typer.Argument(help="Hydra overrides, such as loss=dr data=digits seed=1.")]
ConfigDir = Annotated[Path | None, typer.Option(help="A folder of further options, laid out like conf/.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print runs, steps, images, time (from a short probe) and disk; run nothing.")
]
Results = Annotated[Path, typer.Option(help="Where to write, under a folder for each data set.")]
REPRODUCED = Path("reproduced")  # a user's own; results/ is what the repository publishes
Paper = Annotated[
    bool, typer.Option("--paper", help="The paper's numbers also beside data that stand for none of its.")
]


@dataclasses.dataclass(frozen=True)
class Output:
    """How a command says what it has to say."""

    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.", callback=_set_debug)] = False


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What every sweep is asked for beside its runs."""

    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Runs at a time; each gets its share of the cores.")
    ] = 1
    dry_run: DryRun = False
    detect: Annotated[
        float | None,
        typer.Option(
            min=0.01, metavar="AP", help="With --dry-run: the seeds that see such a difference, by runs here."
        ),
    ] = None
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run again what failed before.")] = False
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop everything at the first failure.")] = False
    tables: Annotated[bool, typer.Option(help="Print the tables at the end.")] = True
    config_dir: ConfigDir = None


def command(app: typer.Typer, name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command of ``app``; its arguments that are dataclasses give it their fields as options."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        bundles: dict[str, Any] = {key: kind for key, kind in hints.items() if dataclasses.is_dataclass(kind)}
        parameters = [p for key, p in inspect.signature(function).parameters.items() if key not in bundles]
        for kind in bundles.values():
            parameters += inspect.signature(kind).parameters.values()

        @wraps(function)
        def call(**given: Any) -> None:
            for key, kind in bundles.items():
                given[key] = kind(**{name: given.pop(name) for name in inspect.signature(kind).parameters})
            function(**given)

        keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        call.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]  # which Typer looks at
        call.__annotations__ = {p.name: p.annotation for p in keyword}
        app.command(name)(call)
        return function

    return register
