import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from drrepro.bench.step import BARE, TORCHVISION, group
from drrepro.cli import app
from drrepro.config import compose


def test_a_step_is_timed_beside_its_peers(tmp_path):
    overrides = ["loss=focal,rank_sort", "schedule.precision=fp32,bf16", "input.scale=64", "schedule.images_per_step=2"]
    command = ["bench", "step", *overrides, "--repeats", "1", "--results", str(tmp_path), "--json", "--quiet"]
    rows = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    assert [row["step"] for row in rows] == 2 * [BARE, "focal", "rank_sort", TORCHVISION]
    assert [row["precision"] for row in rows] == 4 * ["fp32"] + 4 * ["bf16"]
    for row in rows:
        assert row["images per second"] == pytest.approx(2 / row["seconds"])
        assert all(row[f"x {peer}"] > 0 for peer in (BARE, "focal", TORCHVISION))
    assert rows[0][f"x {BARE}"] == rows[1]["x focal"] == rows[3][f"x {TORCHVISION}"] == 1


def test_a_table_keeps_the_rows_of_what_is_not_measured_again(tmp_path):
    small = ["input.scale=64", "schedule.images_per_step=2", "--repeats", "1", "--results", str(tmp_path), "--quiet"]
    for overrides in (["loss=focal,dr", "schedule.precision=fp32,bf16"], ["loss=ap", "schedule.precision=fp32"]):
        CliRunner().invoke(app, ["bench", "step", *overrides, *small], catch_exceptions=False)
    table = pd.read_csv(tmp_path / "bench" / "step.csv")
    assert table["step"].tolist() == [BARE, "focal", "dr", TORCHVISION, BARE, "ap", TORCHVISION]
    assert table["precision"].tolist() == 4 * ["bf16"] + 3 * ["fp32"]


def test_groups_are_of_configurations_that_differ_in_the_recipe_of_the_loss_alone():
    points = [[f"loss={loss}", f"input.scale={scale}"] for loss in ("focal", "dr", "ap") for scale in (64, 128)]
    groups = group([compose(point) for point in points])
    assert [[(c.input.scale, c.loss.name) for c in own] for own in groups] == [
        [(64, "focal"), (64, "dr"), (64, "ap")],
        [(128, "focal"), (128, "dr"), (128, "ap")],
    ]
