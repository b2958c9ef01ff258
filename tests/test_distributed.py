"""Two gloo processes do what one does."""

import gzip
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import multiprocessing

from drrepro.config import compose, run_id
from drrepro.data.loader import Batch
from drrepro.distributed import own_share, process_group
from drrepro.errors import UsageError
from drrepro.experiments.run import run
from drrepro.losses.named import build_loss
from drrepro.models.retinanet import RetinaNet
from drrepro.progress import silent
from drrepro.training.loop import _prepare
from drrepro.training.step import add_gradients, with_targets
from tests.conftest import TINY

CPU = torch.device("cpu")
MODEL = ["model=resnet18", "model.norm=frozen", "model.fpn_channels=16", "model.head_convs=1"]


def batch_of(indices):
    """Images of one size, so that how they are batched does not change their padding; a different number of boxes."""
    generator = torch.Generator().manual_seed(0)
    images, corners = torch.randn(4, 3, 64, 96, generator=generator), 30 * torch.rand(4, 3, 2, generator=generator)
    boxes = torch.cat([corners, corners + torch.tensor([30.0, 28.0])], dim=2)
    labels = torch.tensor([[1, 2, 3], [2, 0, 0], [0, 0, 0], [3, 1, 0]])
    return Batch([], images[indices], [(64, 96)] * len(indices), boxes[indices], labels[indices])


def gradients(config, indices):
    """Return the step's numbers and every parameter's gradient, the images ``indices`` being this rank's."""
    torch.manual_seed(0)
    model = RetinaNet(config.model, 3).double()  # so that the order of its sums does not show
    accumulate = config.schedule.accumulate
    size = len(indices) // accumulate
    batches = [batch_of(indices[i : i + size]) for i in range(0, len(indices), size)]
    doubled = [replace(batch, images=batch.images.double()) for batch in batches]
    parts = [with_targets(batch, model, config) for batch in doubled]
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    numbers = add_gradients(_prepare(model, config, CPU), build_loss(config.loss), scaler, parts, config)
    return dict(zip(("classification", "box"), numbers.tolist(), strict=True)), {
        name: p.grad for name, p in model.named_parameters() if p.grad is not None
    }


@contextmanager
def as_rank(number, port="29511", count=2):
    """In a process of its own: rank ``number`` of ``count``."""
    os.environ.update(RANK=str(number), WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    torch.set_num_threads(1)
    yield


def rank(number, folder, overrides):
    with as_rank(number), process_group(CPU):
        torch.save(gradients(compose(overrides), own_share([0, 1, 2, 3])), f"{folder}/{number}.pt")


@pytest.mark.parametrize("loss", ["focal", "dr"])
def test_a_batch_split_over_ranks_and_passes_has_the_gradients_of_the_whole(loss, tmp_path):
    overrides = [f"loss={loss}", *MODEL, "schedule.precision=fp32"]
    numbers, expected = gradients(compose(overrides), [0, 1, 2, 3])
    assert numbers["box"] > 0
    assert all(gradient.dtype == torch.float64 for gradient in expected.values())
    multiprocessing.spawn(rank, (str(tmp_path), [*overrides, "schedule.accumulate=2"]), nprocs=2)
    split = [gradients(compose([*overrides, f"schedule.accumulate={n}"]), [0, 1, 2, 3]) for n in (2, 4)]
    ranks = [torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in (0, 1)]
    for own_numbers, own in [*split, *ranks]:
        assert own_numbers == pytest.approx(numbers, rel=1e-5)
        assert own.keys() == expected.keys()
        for name, gradient in own.items():
            torch.testing.assert_close(
                gradient, expected[name], rtol=1e-9, atol=1e-12 * expected[name].abs().max().item()
            )


def torchrun(*arguments):
    command = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29512", "-m", "drrepro", *arguments]
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)


def test_torchrun_trains_writes_once_and_evaluates_as_one_process_does(environment, data_folder):
    overrides = [*TINY, "schedule.steps=2", "evaluation.images_per_batch=2", "evaluation.score_thresholds=[0.05,0.2]"]
    trained = torchrun("train", "--json", *overrides)
    assert trained.returncode == 0, trained.stderr
    record = json.loads(trained.stdout)  # of one rank
    name = run_id(compose(overrides))
    assert record["id"] == name
    again = [*overrides, f"weights=run:{name}", "schedule.steps=0"]
    one = run(compose(again), environment, data_folder, silent)
    assert {key: one[key] for key in ("metrics", "densities")} == {key: record[key] for key in ("metrics", "densities")}
    packed = [
        json.loads(gzip.decompress((environment / n / "detections.json.gz").read_bytes())) for n in (name, one["id"])
    ]
    assert packed[0] == packed[1]
    assert len(packed[0]) > 0
    steps = [json.loads(line)["step"] for line in (environment / name / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2]


def test_images_that_cannot_be_shared_equally_are_refused(environment, data_folder):
    with pytest.raises(UsageError, match=r"schedule.images_per_step=8 schedule.accumulate=3: 1 ranks"):
        run(compose([*TINY, "schedule.accumulate=3"]), environment, data_folder, silent)
