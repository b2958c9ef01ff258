"""The commands as they are typed, in processes of their own where exit codes and streams matter."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from drrepro.cli import app
from tests.conftest import DIVERGING, TINY


def drrepro(*arguments):
    return subprocess.run([sys.executable, "-m", "drrepro", *arguments], capture_output=True, text=True, check=False)


def invoke(*arguments):
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_command_has_help_with_an_example():
    groups = {None: app, **{group.name: group.typer_instance for group in app.registered_groups}}
    for name, group in groups.items():
        for command in group.registered_commands:
            words = [*([name] if name else []), command.name or command.callback.__name__]
            text = invoke(*words, "--help")
            assert "Example: drrepro" in text, words


def test_help_imports_nothing_heavy():
    code = "import drrepro.cli, sys; print([m for m in ('torch', 'hydra', 'pandas', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_train_evaluate_and_sweep_by_json(environment):
    record = json.loads(invoke("train", "--json", *TINY))
    assert (environment / record["id"] / "record.json").is_file()
    other = json.loads(invoke("evaluate", "--json", f"weights=run:{record['id']}", "evaluation.nms_iou=0.6"))
    assert {row["nms_iou"] for row in other["metrics"]} == {0.6}
    assert other["id"] != record["id"]
    assert other["densities"] == record["densities"]
    plan = json.loads(invoke("sweep", "thresholds", "--json", "--dry-run", *TINY))
    done, new = sorted(plan, key=lambda row: row["state"])
    assert (done["run_id"], done["state"], done["seconds"]) == (record["id"], "done", 0)
    assert (new["state"], new["steps"], new["images_trained"], new["images_tested"]) == ("new", 4, 32, 8)
    assert new["seconds"] > 0
    assert new["disk_mb"] > 1
    outcomes = json.loads(invoke("sweep", "thresholds", "--json", "--nms-iou", "0.4,0.6", *TINY))
    assert [o["state"] for o in outcomes] == ["skipped", "done", "done", "done"]  # two trained, two evaluated again
    written = json.loads(invoke("report", "tables", "--json"))
    assert [t.get("table", t["title"]) for t in written] == [1, "nms"]
    swept = {(row["loss"], row["nms_iou"]) for row in written[1]["rows"]}
    assert {("dr", 0.4), ("dr", 0.6), ("focal", 0.4), ("focal", 0.6)} <= swept
    assert all((environment / o["run_id"] / "bootstrap.npz").is_file() for o in outcomes[:2])
    claims = json.loads(invoke("report", "claims", "--json"))["claims"]
    assert [c["name"] for c in claims if c["verdict"] != "not run"] == ["threshold", "separation"]
    assert "not run" in invoke("report", "claims")
    assert "| not run " in Path("reproduced/claims.md").read_text()
    assert Path("reproduced/claims.png").is_file()
    figures = json.loads(invoke("report", "figures", "--json"))
    assert len(figures) == 3


def test_the_human_output_names_every_threshold_and_the_folder(environment):
    text = invoke("train", *TINY)
    assert text.count("\n 0.5") >= 6
    assert str(environment) in text
    text = invoke("sweep", "thresholds", "--dry-run", *TINY)
    assert "2 runs: 0:00:" in text
    assert "done" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "los=dr"], "error: los: no such key; did you mean loss?"),
        (["train", "loss=drx"], "error: loss=drx: no such option; choose from ap, balanced_ce, dr, focal, ghm_c"),
        (["train", "schedule.lr=fast"], "error: schedule.lr=fast: Value 'fast'"),
        (["train", "loss.h=1"], "error: loss.h=1.0: must exceed 1"),
        (["train", "data=coco_custom"], "error: data.train_json and data.train_images: both are needed"),
        (["train", "data=voc_custom", "data.root=nowhere"], "nowhere/ImageSets/Main/trainval.txt: No such file"),
        (["train", "--config-dir", "nowhere"], "error: --config-dir nowhere: not a folder"),
        (["evaluate"], "error: weights=run:ID is needed"),
        (["evaluate", "model=retinanet_r50"], "error: weights=run:ID is needed"),
        (["evaluate", "weights=nowhere.pth"], "nowhere.pth: no such file; takes none, imagenet, run:ID or the path"),
        (["train", "weights=imagenet"], "error: weights=imagenet: there are none of model.backbone=small"),
        (["train", "weights=imagenet", "model=retinanet_r50_caffe"], "have the stride in the 3x3 and take RGB; set"),
        (["train", "model=retinanet_r50_caffe"], "random weights would be frozen; give weights, or set"),
        (["evaluate", "weights=run:nothing"], "nothing: no finished run here"),
        (["sweep", "thresholds", "--nms-iou", "a"], "error: --nms-iou a: needs numbers separated by commas"),
        (["report", "tables"], "no sweep was run here; try `drrepro sweep all`"),
        (
            ["sweep", "thresholds", "data=voc_custom", "data.root=nowhere"],
            "nowhere/ImageSets/Main/trainval.txt: No such",
        ),
        (["sweep", "thresholds", "loss.h=2,3"], "error: loss.h: a table takes one value of it"),
        (["train", "model=resnet18", "model.norm=frozen"], "model.norm=frozen: random weights would be frozen"),
        (["train", "weights=run:nothing"], "error: weights=run:nothing: no checkpoint in"),
        (["train", "seed=-1"], "error: seed=-1: must not be negative"),
        (["train", "runtime.log_every=0"], "error: runtime.log_every=0: must be at least 1"),
        (["train", "schedule.lr=inf"], "error: schedule.lr=inf: must be finite"),
        (["data", "make", "x"], "error: x: not an embedded data set; choose from digits, letters"),
        (["train", "runtime.device=abacus"], "error: runtime.device=abacus: "),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(environment, arguments, message):
    result = drrepro(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_run_that_fails_is_one_line_and_exit_code_1(environment):
    result = drrepro("train", "--quiet", *DIVERGING)
    assert result.returncode == 1
    assert "the loss is not finite" in result.stderr
    assert result.stderr.count("\n") == 1
    result = drrepro("sweep", "grid", "--quiet", "loss=dr,focal", *DIVERGING)
    assert result.returncode == 1
    assert "0 run" in result.stderr
    rows = [line for line in result.stdout.splitlines() if " failed " in line]
    assert len(rows) == 2
    assert all("the loss is not finite" in row and "log.txt" in row for row in rows)


def test_debug_shows_the_traceback(environment):
    result = drrepro("train", "los=dr", "--debug")
    assert "Traceback" in result.stderr


def test_a_folder_that_cannot_be_written_is_named(environment, monkeypatch):
    environment.write_text("a file where the runs folder should be")
    result = drrepro("train", "--quiet", *TINY)
    assert result.returncode == 1
    assert str(environment) in result.stderr
    assert result.stderr.count("\n") == 1
