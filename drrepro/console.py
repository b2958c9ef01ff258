"""What the command line shows: progress on stderr (live on a terminal, plain lines elsewhere), tables on stdout."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text

from drrepro.progress import Report, silent
from drrepro.text import percent_text

if TYPE_CHECKING:
    import pandas as pd

    from drrepro.report.table import Table
    from drrepro.runs.records import Record

LABELS = {"loss": "loss {:.3f}", "lr": "lr {:.2e}", "images_per_second": "{:.0f} img/s"}
WRAPPED = ("claim", "statistic")  # columns of sentences
PLAIN_EVERY = 20.0  # seconds between plain lines
PROBLEMS = 30  # of a data set that are printed


@contextmanager
def progress(quiet: bool) -> Iterator[Report]:
    """Yield a Report that draws on stderr; stdout is left to results."""
    if quiet:
        yield silent
    elif sys.stderr.isatty():
        yield from _live()
    else:
        yield _plain()


def _live() -> Iterator[Report]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    drawn: dict[str, str] = {}  # the stage that each bar shows
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def report(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
            owner = stage.partition(" ")[0]  # "ID train" is drawn on the bar of ID, where there is one
            bar = owner if owner in tasks else stage
            if bar not in tasks:
                tasks[bar] = bars.add_task(stage, total=total, numbers="")
            elif drawn[bar] != stage:
                bars.reset(tasks[bar], description=stage)  # the time left is of a stage
            drawn[bar] = stage
            bars.update(tasks[bar], completed=done, total=total, numbers=describe(numbers))

        yield report


def _plain() -> Report:
    started: dict[str, tuple[float, int]] = {}
    shown: dict[str, float] = {}

    def report(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        now = time.monotonic()
        since, first = started.setdefault(stage, (now, done))
        if now - shown.get(stage, since) < PLAIN_EVERY and done < total:
            shown.setdefault(stage, since)
            return
        if done >= total and shown.get(stage) == float("inf"):
            return  # its end was shown
        shown[stage] = float("inf") if done >= total else now
        left = (now - since) / (done - first) * (total - done) if done > first else 0.0
        count = f"{done}/{total}" if total > 1 else "done"
        parts = [f"{stage} {count}", describe(numbers), f"{left:.0f} s left" if done < total else ""]
        print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)

    return report


def describe(numbers: dict[str, float]) -> str:
    """Return the numbers that are worth a place in the line."""
    return "  ".join(text.format(numbers[key]) for key, text in LABELS.items() if key in numbers)


def print_metrics(record: "Record", directory: Path) -> None:
    """Print a run's metrics at each threshold, per cent, and where they are kept; or what to upload for them."""
    if record["metrics"]:
        _print_thresholds(record)
    else:
        print("The objects of this split are secret; for its metrics upload the zip at https://cocodataset.org/#upload")
        print(record.get("submission"))
    dropped = record["data"]["dropped_boxes"]
    if dropped:
        print(f"{len(dropped)} degenerate boxes dropped, listed in record.json; the first: {dropped[0]}")
    left_out = record["data"]["dropped_images"]
    if left_out:
        print(f"{len(left_out)} bad images left out, listed in record.json; the first: {next(iter(left_out.values()))}")
    print(directory)


def _print_thresholds(record: "Record") -> None:
    names = [name for name in record["metrics"][0] if name not in ("nms_iou", "score_threshold")]
    table = plain_table("NMS", "threshold", *names)
    own = record["config"]["evaluation"]["score_threshold"]
    for row in record["metrics"]:
        values = [percent_text(row[name]) for name in names]
        style = "bold" if row["score_threshold"] == own else None
        table.add_row(f"{row['nms_iou']:g}", f"{row['score_threshold']:g}", *values, style=style)
    print_rich(table)


def print_checks(checks: dict[str, Any]) -> None:
    """Print a row for each split, the objects of each class, and the problems."""
    kinds = list(next(iter(checks.values()))["problems"])
    splits = plain_table("split", "images", "published", "objects", "empty images", "crowd/difficult", *kinds)
    for split, check in checks.items():
        counts = [check[key] for key in ("images", "expected", "objects", "empty", "ignored")]
        found = [len(check["problems"][kind]) for kind in kinds]
        splits.add_row(split, *("" if n is None else f"{n:,}" for n in counts + found))
    print_rich(splits)
    classes = plain_table("class", *checks)
    names = dict.fromkeys(name for check in checks.values() for name in check["classes"])
    for name in names:
        objects = [check["classes"].get(name, 0) for check in checks.values()]
        classes.add_row(name, *(f"{n:,}" if n else "none" for n in objects), style=None if all(objects) else "yellow")
    print_rich(classes)
    lines = [f"{kind}: {line}" for check in checks.values() for kind in kinds for line in check["problems"][kind]]
    for line in lines[:PROBLEMS]:
        print(line)
    if len(lines) > PROBLEMS:
        print(f"and {len(lines) - PROBLEMS:,} more, all of them with --json")
    print(f"{len(lines):,} problems" if lines else "nothing wrong")


def print_table(table: "Table") -> None:
    """Print a numbered table, a block of lines a setting: paper, ours with its spread, difference."""
    from drrepro.report.table import display

    text = display(table)
    arms = [column.head for column in table.columns]
    named = [arm if i == arms.index(arm) else "" for i, arm in enumerate(arms)]  # an arm above its first metric
    heads = [f"{arm}\n{column.metric}" for arm, column in zip(named, table.columns, strict=True)]
    drawn = plain_table(text.columns[0], "", *heads)
    for setting, block in text.groupby(text.columns[0], sort=False):
        for i, (source, *cells) in enumerate(block.iloc[:, 1:].itertuples(index=False)):
            style = {"ours": "bold", "sd (n)": "dim", "95%": "dim"}.get(source)
            drawn.add_row("" if i else str(setting), source, *cells, style=style, end_section=i == len(block) - 1)
    print(f"\n{table.title}")
    print_rich(drawn)
    for finding in table.findings:
        print(f"  {finding}")


def print_claims(frame: "pd.DataFrame", rule: str) -> None:
    """Print `drrepro.report.claim_text.claim_table`, a block of lines a claim, and the rule of the verdicts."""
    styles = {"holds": "bold green", "does not hold": "bold red", "undecided": "bold yellow", "not run": "dim"}
    drawn = RichTable(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in frame.columns:
        drawn.add_column(name, max_width={"claim": 30, "statistic": 36}.get(name), no_wrap=name not in WRAPPED)
    for _, row in frame.iterrows():
        if row["claim"]:
            drawn.add_section()
        drawn.add_row(*(Text(text, style=styles.get(text, "")) for text in row))
    print_rich(drawn)
    print(rule)


def print_plain(title: str, frame: "pd.DataFrame") -> None:
    """Print any frame."""
    drawn = plain_table(*map(str, frame.columns))
    for _, row in frame.iterrows():
        drawn.add_row(*("" if v != v or v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row))
    print(f"\n{title}")
    print_rich(drawn)


def plain_table(*heads: str) -> RichTable:
    """Return an empty table in the one style of all."""
    drawn = RichTable(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, head in enumerate(heads):
        drawn.add_column(head, justify="left" if i < 2 else "right", no_wrap=True)
    return drawn


def print_rich(drawn: RichTable) -> None:
    """Print at the table's own width where the terminal is narrower or unknown: a folded number is not a number."""
    needed = Console(width=1000).measure(drawn).maximum
    Console(width=max(Console().width, needed)).print(drawn)
