import json

import pytest
import torch
from typer.testing import CliRunner

from drrepro.bench.pipeline import bench
from drrepro.cli import app
from drrepro.config import compose
from tests.conftest import shared


def test_a_bench_compares_both_ways_with_plain_reading_and_restores_the_threads(data_folder):
    before = torch.get_num_threads()
    calls = []
    frame = bench(compose(["input.scale=64"]), data_folder, 6, 2, lambda done, total: calls.append((done, total)))
    assert torch.get_num_threads() == before
    assert frame["read by"].tolist() == ["plain decode + resize", "pipeline, in this process", "pipeline, one worker"]
    assert calls[-1] == (3, 3)
    assert frame["images"].tolist() == [6] * 3
    assert (frame["per second"] > 0).all()
    assert frame["ratio"].tolist() == pytest.approx(frame["per second"] / frame["per second"][0])


def test_real_pictures_by_the_command_line(environment):
    folder = shared("coco2017_mini")
    keys = [f"data.train_{key}" for key in ("json", "images")]
    paths = [folder / "annotations" / "instances_train2017.json", folder / "train2017"]
    given = [f"{key}={path}" for key, path in zip(keys, paths, strict=True)]
    arguments = ["bench", "input", "--json", "--quiet", "--images", "4", "--repeats", "1", "data=coco_custom", *given]
    rows = json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout)
    assert [row["images"] for row in rows] == [4, 4, 4]
    assert rows[0]["ratio"] == 1
