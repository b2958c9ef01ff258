"""Batches of few sizes are compiled once each; PyTorch's own counters say so."""

from itertools import product

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from drrepro.config import compose
from drrepro.data.loader import Item, collate
from drrepro.errors import UsageError
from drrepro.models.retinanet import RetinaNet
from drrepro.training.loop import build_learner
from drrepro.training.step import with_targets
from tests.data.test_loader import sample

CPU = torch.device("cpu")
SMALL = ["input.scale=64", "input.size_divisor=16", "runtime.compile=true", "schedule.precision=fp32"]
SIZES = [(64, 64), (64, 96), (64, 80), (48, 112), (112, 64), (70, 64), (96, 96), (128, 64)]


def batch_of(size, config, model):
    pixels = torch.zeros(3, *size, dtype=torch.uint8)
    item = Item(sample("none", size[1], size[0], [(5, 5, 40, 40)]), pixels, flip=False)
    return with_targets(collate([item], config.input, CPU), model, config)


def graphs_after(sizes, learner, config):
    for step, size in enumerate(sizes):
        learner.step(step, [batch_of(size, config, learner.model)])
    learner.read()
    return counters["stats"]["unique_graphs"]


@pytest.fixture
def eager_backend(monkeypatch):
    """What is compiled is traced, guarded and counted the same; no C++ compiler is needed."""
    monkeypatch.setattr(RetinaNet, "compile", lambda self, **how: nn.Module.compile(self, backend="eager", **how))
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def test_nothing_is_compiled_again_after_each_size_was_seen(eager_backend):
    config = compose([*SMALL, "input.pad_to=[64,96,128]"])
    learner = build_learner(RetinaNet(config.model, 3), config, CPU)
    every = list(product([64, 96, 128], repeat=2))
    warm = graphs_after(every, learner, config)
    assert warm >= 9
    assert graphs_after(SIZES, learner, config) == warm
    learner.model.eval()
    with torch.inference_mode():
        for size in every:
            learner.model(batch_of(size, config, learner.model)[0].images)
        evaluated = counters["stats"]["unique_graphs"]
        assert evaluated >= warm + 9  # none fell back for want of room
        for size in SIZES:
            learner.model(batch_of(size, config, learner.model)[0].images)
    assert counters["stats"]["unique_graphs"] == evaluated


def test_sides_are_padded_to_the_next_size_and_beyond_the_largest_to_the_divisor():
    config = compose([*SMALL, "input.pad_to=[128,64]"])
    model = RetinaNet(config.model, 3)
    shapes = {size: batch_of(size, config, model)[0].images.shape[2:] for size in [*SIZES, (130, 20)]}
    assert shapes[64, 96] == (64, 128)
    assert shapes[70, 64] == (128, 64)
    assert shapes[130, 20] == (144, 64)
    with pytest.raises(UsageError, match=r"input.pad_to=\[60\]: needs multiples of input.size_divisor=16"):
        compose([*SMALL, "input.pad_to=[60]"])
