"""What the sums of a step are divided by, against the formulas written out."""

import sys

import pytest
import torch
from torch import multiprocessing
from torch.nn import functional

from drrepro.config import compose
from drrepro.distributed import own_share, process_group
from drrepro.losses import DRLoss, FocalLoss
from drrepro.models.anchors import encode
from drrepro.training.box_loss import box_loss
from drrepro.training.normalize import normalizers
from tests.test_distributed import CPU, MODEL, as_rank, gradients

IMAGES, ANCHORS, CLASSES = 16, 40, 3
WEIGHTS = [10.0, 10.0, 5.0, 5.0]


def uneven():
    """Labels (16, 40) of 8 parts with from none to many positives."""
    torch.manual_seed(0)
    chance = torch.rand(IMAGES, ANCHORS)
    often = torch.arange(IMAGES)[:, None] // 2 / 8  # of the first part none
    return torch.where(chance < often**2, torch.randint(1, CLASSES + 1, chance.shape), -(chance > 0.95).long())


def split(accumulate):
    return torch.split(uneven(), IMAGES // accumulate)


@pytest.mark.parametrize("accumulate", [1, 2, 8, 16])
def test_the_positives_and_images_of_a_part_are_those_of_two_images_however_they_are_split(accumulate):
    counted = normalizers(list(split(accumulate)), "part")
    positives = (uneven() > 0).sum(1).view(-1, 2).sum(1)
    assert positives.unique().numel() > 4  # uneven ones
    assert torch.equal(torch.cat([own.positives for own in counted]), positives.repeat_interleave(2))
    assert all((own.images == 2).all() and own.parts == 8 for own in counted)


def test_a_last_part_may_be_one_image():
    (own,) = normalizers([uneven()[:3]], "part")
    assert own.images.tolist() == [2, 2, 1]
    assert own.parts == 2


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("loss", [FocalLoss(), DRLoss()])
def test_losses_of_parts_are_averaged_as_the_formula_says(loss, accumulate):
    labels, logits = uneven(), torch.randn(IMAGES, ANCHORS, CLASSES).double()
    passes = zip(logits.chunk(accumulate), labels.chunk(accumulate), strict=True)
    counted = normalizers(list(split(accumulate)), "part")
    found = sum(loss.share(*own, n, accumulate) for own, n in zip(passes, counted, strict=True))
    by_part = [loss(*own) for own in zip(logits.split(2), labels.split(2), strict=True)]
    torch.testing.assert_close(found, torch.stack(by_part).mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("on_a_gpu", [False, True])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_box_losses_of_parts_are_averaged_as_the_formula_says(accumulate, on_a_gpu, monkeypatch):
    if on_a_gpu:  # all anchors stand there for the positives
        module = sys.modules[box_loss.__module__]
        monkeypatch.setattr(module, "maybe_positive", lambda labels: torch.arange(labels.numel()))
    labels, deltas, config = uneven(), torch.randn(IMAGES, ANCHORS, 4), compose([]).loss
    corners = 50 * torch.rand(IMAGES + 1, ANCHORS, 2)
    anchors, *boxes = torch.cat([corners, corners + 20], dim=2)
    boxes = torch.stack(boxes)
    by_part = []
    for part in range(8):
        own = slice(2 * part, 2 * part + 2)
        positive = labels[own] > 0
        targets = torch.stack(encode(boxes[own], anchors, WEIGHTS), dim=-1)[positive]
        total = functional.smooth_l1_loss(deltas[own][positive], targets, beta=config.box_beta, reduction="sum")
        by_part.append(total / max(1, config.box_normalizer * positive.sum()))
    chunks = zip(deltas.chunk(accumulate), labels.chunk(accumulate), boxes.chunk(accumulate), strict=True)
    counted = normalizers(list(split(accumulate)), "part")
    found = sum(
        box_loss(d, anchors, own, b, config, WEIGHTS, n) for (d, own, b), n in zip(chunks, counted, strict=True)
    )
    torch.testing.assert_close(found, torch.stack(by_part).mean(), rtol=1e-6, atol=0)


def rank(number, folder, overrides):
    with as_rank(number, "29513"), process_group(CPU):
        torch.save(gradients(compose(overrides), own_share([0, 1, 2, 3])), f"{folder}/{number}.pt")


@pytest.mark.parametrize("loss", ["focal", "dr"])
def test_one_rank_that_accumulates_has_the_gradients_of_two(loss, tmp_path):
    overrides = [f"loss={loss}", *MODEL, "schedule.precision=fp32", "loss.normalize=part"]
    _, step = gradients(compose([*overrides, "loss.normalize=step"]), [0, 1, 2, 3])
    numbers, expected = gradients(compose([*overrides, "schedule.accumulate=2"]), [0, 1, 2, 3])
    name = "regressor.final.weight"
    assert (step[name] - expected[name]).norm() > 0.05 * expected[name].norm()  # it is another loss
    multiprocessing.spawn(rank, (str(tmp_path), [*overrides, "schedule.accumulate=2"]), nprocs=2)
    ranks = [torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in (0, 1)]
    for own_numbers, own in [gradients(compose(overrides), [0, 1, 2, 3]), *ranks]:
        assert own_numbers == pytest.approx(numbers, rel=1e-6)
        for name, gradient in own.items():
            error = (gradient - expected[name]).norm() / expected[name].norm().clamp(min=1e-12)
            assert error < 1e-6, (name, error)
