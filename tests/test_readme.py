"""What the README and the pages of the documentation show is what the project does."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from drrepro.cli import app
from drrepro.composing import expand
from drrepro.config import compose
from drrepro.studies.planning import grid

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs" / "pages").glob("*.md"))]}
README = PAGES["README.md"]
TEXT = "\n".join(
    text for name, text in PAGES.items() if name != "extend.md"
)  # whose commands tests/test_extend.py runs
COMMANDS = sorted(set(re.findall(r"^(?:\$ )?(drrepro [^#\n]*)", TEXT, re.MULTILINE)))
TARGETS = sorted(set(re.findall(r"(?:`|^)make ([a-z]+)", TEXT, re.MULTILINE)))


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
        for line in TEXT.splitlines()
        if line.startswith("|") and re.search(r"\| (ours|paper|sd \(n\)|95%) +\|", line)
    ]
    assert rows
    for row in rows:
        assert row in written, row


def test_claims_and_time_are_those_of_results():
    assert (ROOT / "results" / "claims.md").read_text().strip() in PAGES["results.md"]
    seconds = int(re.search(r"(\d+) s, DATA=digits SEEDS=0,1,2", (ROOT / "results" / "reproduced.txt").read_text())[1])
    for page in ("README.md", "results.md"):
        assert f"`make reproduce SEEDS=0,1,2` took {seconds:,} s" in PAGES[page].replace("\n", " ")


DIGITS = {"mean score": 2, "overlap": 3, "ROC AUC": 4}
ROWS = {"threshold": "Table 1", "average": "Table 2", "dataset": "Table 3", "separation": "Figure 1"}


def test_the_summary_has_the_verdicts_and_numbers_of_the_claims():
    claims = json.loads((ROOT / "results" / "claims.json").read_text())["claims"]
    for name, place in ROWS.items():
        (row,) = [line for line in README.splitlines() if line.startswith(f"| {place}")]
        for claim in (claim for claim in claims if claim["name"] == name):
            assert f"**{claim['verdict']}**" in row
            for part in claim["parts"]:
                if "IoU < 0.4" in part["statistic"]:  # hardly another number; the results have both
                    continue
                digits = next((d for word, d in DIGITS.items() if word in part["statistic"]), 1)
                value, low, high = (f"{part[key]:z.{digits}f}" for key in ("value", "low", "high"))
                assert f"{value} ({low}..{high})" in row
                if part["paper"] is not None:
                    assert f"{part['paper']:.1f}" in row


def test_the_summary_has_the_range_over_the_scales():
    claims = json.loads((ROOT / "results" / "claims.json").read_text())["claims"]
    (scale,) = [claim for claim in claims if claim["name"] == "scale"]
    gains = [part["value"] for part in scale["parts"]]
    assert f"**{scale['verdict']}**: {min(gains):.1f} to {max(gains):.1f}, mean" in README


def test_the_readme_is_read_in_a_few_minutes():
    assert len(README.split()) <= 1500


@pytest.mark.parametrize("page", PAGES)
def test_linked_files_exist(page):
    folder = ROOT if page == "README.md" else ROOT / "docs" / "pages"
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGES[page]) if "://" not in link]
    for link in links:
        assert (folder / link).exists(), link


def test_every_page_is_in_the_navigation():
    navigation = yaml.safe_load((ROOT / "docs" / "mkdocs.yml").read_text())["nav"]
    assert sorted(navigation) == sorted(name for name in PAGES if name != "README.md")


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", str(ROOT / "docs" / "mkdocs.yml")]
    built = subprocess.run([*command, "-d", str(tmp_path)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "results" / "claims.png").is_file()


def test_the_times_of_the_losses_are_those_of_the_bench():
    frame = pd.read_csv(ROOT / "results" / "bench" / "losses.csv")
    shown = frame[(frame["anchors"] == 100_000) & (frame["threads"] == 1)]
    assert len(shown) >= 5
    for row in shown.itertuples():
        times = f"{row.forward_ms:.1f} | {row.backward_ms:.1f} | {row.total_ms:.1f} | {row.extra_memory:.1f}"
        assert f"| {row.loss} | {times} |" in PAGES["losses.md"]


@pytest.mark.parametrize(
    ("page", "begin", "end", "table"),
    [
        ("results.md", "On digits after 1,500 steps it is the prior", "## Is focal", "digits/attribution"),
        ("results.md", "On digits, yes: the gap closes", "what two trained", "digits/length"),
        ("results.md", "On digits after 1,500 steps from random weights", "![Densities", "digits/losses"),
        ("results.md", "Known by heart", "<!-- end -->", "bccd/overfitting"),
        ("results.md", "Of the intervals", "<!-- end -->", "bench/verdicts"),
        ("README.md", "focal loss with\n  the same prior gains", "And it is a head start", "digits/attribution"),
        ("README.md", "And it is a head start", "Both studies", "digits/length"),
    ],
)
def test_what_is_said_of_a_study_stands_in_its_table(page, begin, end, table):
    text = PAGES[page]
    said = text[text.index(begin) : text.index(end, text.index(begin))]
    numbers = set(re.findall(r"(?<![\d.])-?\d+\.\d(?![\d])(?:\.\.-?\d+\.\d)?", said)) - {"0.5"}  # the prior
    written = (ROOT / "results" / f"{table}.md").read_text()
    assert numbers
    assert {number for number in numbers if number not in written} == set()
