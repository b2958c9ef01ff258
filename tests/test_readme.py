"""What the README shows is what the project does."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from drrepro.cli import app
from drrepro.config import compose, expand
from drrepro.experiments.plan import grid

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"^(?:\$ )?(drrepro [^#\n]*)", README, re.MULTILINE)))
TARGETS = sorted(set(re.findall(r"(?:`|^)make ([a-z]+)", README, re.MULTILINE)))


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_and_their_overrides_exist(command):
    words = shlex.split(command)[1:]
    overrides = [w for w in words if "=" in w and not w.startswith("-") and not w.startswith("weights=")]
    path = [w for w in words if "=" not in w and not w.startswith("-")][:2]
    while path:
        if CliRunner().invoke(app, [*path, "--help"]).exit_code == 0:
            break
        path.pop()
    assert path, f"{command}: no such command"
    if path == ["sweep", "grid"]:  # which leaves the parameters of one loss away from the others
        grid(overrides)
        return
    for point in expand(overrides):
        compose([o for o in point if not o.endswith("...")])


def test_make_targets_exist():
    assert TARGETS
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(TARGETS) <= targets


def test_tables_are_those_of_results():
    """Each block of table rows stands in a file that `drrepro report tables` wrote."""
    written = "\n".join(path.read_text() for path in sorted((ROOT / "results").rglob("*.md")))
    rows = [
        line
        for line in README.splitlines()
        if line.startswith("|") and re.search(r"\| (ours|paper|sd \(n\)|95%) +\|", line)
    ]
    assert rows
    for row in rows:
        assert row in written, row


def test_claims_and_time_are_those_of_results():
    assert (ROOT / "results" / "claims.md").read_text().strip() in README
    seconds = int(re.search(r"(\d+) s, DATA=digits SEEDS=0,1,2", (ROOT / "results" / "reproduced.txt").read_text())[1])
    assert f"`make reproduce SEEDS=0,1,2` took {seconds:,} s" in README


def test_linked_files_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_times_of_the_losses_are_those_of_the_bench():
    frame = pd.read_csv(ROOT / "results" / "bench" / "losses.csv")
    shown = frame[(frame["anchors"] == 100_000) & (frame["threads"] == 1)]
    assert len(shown) >= 5
    for row in shown.itertuples():
        times = f"{row.forward_ms:.1f} | {row.backward_ms:.1f} | {row.total_ms:.1f} | {row.extra_memory:.1f}"
        assert f"| {row.loss} | {times} |" in README
