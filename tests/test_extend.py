"""The worked examples of docs/pages/extend.md: their files are written, and what they add is used."""

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from drrepro.cli import app
from tests.conftest import TINY

PAGE = (Path(__file__).parents[1] / "docs" / "pages" / "extend.md").read_text()
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = re.findall(r"^drrepro (.*)$", PAGE, re.MULTILINE)


@pytest.fixture
def mine(environment, monkeypatch):
    """The files of the page, in the working folder."""
    for name, content in FILES.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    for module in ("margin_loss", "prior_claim", "csv_tracker"):
        monkeypatch.delitem(__import__("sys").modules, module, raising=False)
    monkeypatch.setenv("PYTHONPATH", "")
    return environment


def drrepro(command, *more):
    done = CliRunner().invoke(app, [*command.split(), *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_page_has_an_example_of_each():
    assert {Path(name).parent.name for name in FILES} == {"mine", "loss", "data", "study", "tracker"}
    assert len(COMMANDS) == 7


def test_a_loss_is_trained_swept_and_reported(mine):
    train, sweep, html = COMMANDS[:3]
    assert json.loads(drrepro(train, *TINY, "--json", "--quiet"))["config"]["loss"]["power"] == 2
    assert "margin - focal" in drrepro(sweep, *TINY, "--quiet")
    drrepro("report tables --config-dir mine --quiet")
    drrepro("report figures --config-dir mine --quiet")
    drrepro(html, "--quiet")
    page = Path("reproduced/report.html").read_text()
    assert "margin loss" in page
    assert "var(--arm2)" in page  # the third colour: focal and DR have the first two
    assert "the AP of margin stays almost the same while that of focal degrades" in page
    assert Path("reproduced/digits/ap_threshold.png").is_file()
    assert "margin AP" in Path("reproduced/digits/table1.md").read_text()
    claims = json.loads(drrepro("report claims --config-dir mine --json --quiet"))["claims"]
    said = {claim["sentence"]: claim["verdict"] for claim in claims if claim["name"] == "threshold"}
    assert list(said) == [
        "From score threshold 0.05 to 0.5 the AP of margin stays almost the same while that of focal degrades."
    ]
    drrepro("report verify --results reproduced --config-dir mine")


def test_a_data_set_is_trained_on(mine, data_folder):
    shutil.copytree(data_folder / "digits" / "images", "pets")
    for split in ("train", "test"):
        shutil.copy(data_folder / "digits" / f"{split}.json", "pets")
    assert json.loads(drrepro(COMMANDS[3], *TINY, "--json", "--quiet"))["data"]["test_images"] == 8


def test_a_study_is_swept_and_its_claims_told(mine):
    sweep, claims = COMMANDS[4:6]
    printed = drrepro(sweep.replace("seed=0,1,2", "seed=0,1"), *TINY, "--quiet")
    assert "priors, prior probability of foreground (paper: COCO minival; ours: digits, 8 of 8 runs" in printed
    found = {claim["name"]: claim for claim in json.loads(drrepro(claims, "--json", "--quiet"))["claims"]}
    assert found["above"]["sentence"] == "The AP of margin is above that of focal at every setting of prior."
    assert found["prior"]["parts"][0]["statistic"] == "AP moved by"
    assert found["prior"]["verdict"] != "not run"
    assert found["scale"]["verdict"] == "not run"  # of the paper, all the same
    drrepro("report tables --config-dir mine --quiet")
    drrepro("report figures --config-dir mine --quiet")
    assert {path.name for path in Path("reproduced/digits").glob("priors*")} == {
        *(f"priors.{end}" for end in ("csv", "md", "tex")),
        *(f"priors-{name}.png" for name in ("ap_axis", "training")),
    }
    drrepro("report html --config-dir mine --quiet")
    page = Path("reproduced/report.html").read_text()
    assert "priors on digits" in page
    assert "does not depend on the prior" in page


def test_a_tracker_gets_every_step_once(mine):
    record = json.loads(drrepro(COMMANDS[6], *TINY, "--json", "--quiet"))
    (path,) = mine.glob("*/tracked.csv")
    lines = path.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["1", "2", "3", "4", "AP"]
    assert record["id"] == path.parent.name
