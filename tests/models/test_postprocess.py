"""Lowering the threshold and filtering afterwards must equal filtering before the top-k and NMS, to the last box."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms, clip_boxes_to_image

from drrepro.models.anchors import AnchorGrid
from drrepro.models.postprocess import Detections, above, select_candidates, suppress
from drrepro.schema import ModelConfig

SIZE = (64, 80)
MODEL = ModelConfig(anchor_sizes=[12.0, 24.0, 48.0, 96.0, 192.0])
ANCHORS = AnchorGrid(MODEL).levels(64, 80, torch.device("cpu"))
COUNT = sum(map(len, ANCHORS))


def detect(scores, deltas, threshold, per_level, limit, iou=0.5):
    candidates = above(select_candidates(scores, deltas, ANCHORS, MODEL, per_level), SIZE, MODEL, threshold)
    return candidates, suppress(candidates, SIZE, iou, limit)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    levels=st.sampled_from([3, 10, 1_000_000]),  # how many different scores: few make ties, 10 hits every threshold
    per_level=st.sampled_from([5, 50, 1000]),
    limit=st.sampled_from([3, 100]),
    threshold=st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]),
)
def test_a_threshold_from_the_sweep_equals_filtering_before_nms(seed, levels, per_level, limit, threshold):
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.rand(COUNT, 3, generator=generator) * levels).round() / levels
    deltas = torch.randn(COUNT, 4, generator=generator)
    low, swept = detect(scores, deltas, 0.05, per_level, limit)
    swept = swept[torch.tensor([score > threshold for score in swept.scores.tolist()], dtype=torch.bool)]
    _, filtered = detect(scores, deltas, threshold, per_level, limit)
    assert torch.equal(swept.boxes, filtered.boxes)
    assert torch.equal(swept.scores, filtered.scores)
    assert torch.equal(swept.labels, filtered.labels)
    if per_level == 5:
        assert len(low.scores) <= 5 * len(ANCHORS)


def test_the_caps_of_1000_and_100_are_reached():
    torch.manual_seed(0)
    scores, deltas = torch.rand(COUNT, 3), torch.randn(COUNT, 4)
    candidates, kept = detect(scores, deltas, 0.05, 1000, 100)
    per_level = [min(1000, len(level) * 3) for level in ANCHORS]
    assert max(per_level) == 1000
    assert len(candidates.scores) > 1000
    assert len(kept.scores) == 100


def test_equals_batched_nms_where_nothing_is_rounded():
    torch.manual_seed(1)
    candidates, kept = detect(torch.rand(COUNT, 3), torch.randn(COUNT, 4), 0.3, 1000, 10_000)
    index = batched_nms(candidates.boxes.double(), candidates.scores.double(), candidates.labels, 0.5)
    torch.testing.assert_close(kept.boxes, candidates.boxes[index])
    assert torch.equal(kept.labels, candidates.labels[index])


def test_no_score_above_the_threshold_gives_nothing():
    _, kept = detect(torch.zeros(COUNT, 3), torch.zeros(COUNT, 4), 0.05, 1000, 100)
    assert kept.boxes.shape == (0, 4)


def test_scores_that_are_no_numbers_are_left_out():
    scores = torch.zeros(COUNT, 3)
    scores[5:8, 1] = torch.tensor([0.9, float("nan"), 0.8])
    candidates, _ = detect(scores, torch.zeros(COUNT, 4), 0.05, 10, 100)
    assert candidates.scores.tolist() == pytest.approx([0.9, 0.8])
    scores[0, :] = scores[-1, :] = 0.7
    scores[20:40] = float("nan")  # more than are kept: they count as larger than any number, and nothing is left
    assert len(detect(scores, torch.zeros(COUNT, 4), 0.05, 10, 100)[0].scores) == 3  # of the last level


def test_a_box_outside_the_image_is_clipped_as_the_convention_has_it():
    boxes = torch.tensor([[-30.0, -20, -5, -2], [90, 70, 99, 99], [10, 20, 30, 40], [-3, -2, 200, 300]])
    height, width = SIZE
    found = Detections(boxes, torch.ones(4), torch.ones(4, dtype=torch.int64))
    benchmark = above(found, SIZE, ModelConfig(convention="maskrcnn_benchmark"), 0.5).boxes
    # Inclusive pixels, whose last one is stored one larger here: x1 and x2 - 1 are clamped to 0..width - 1.
    inclusive = boxes - torch.tensor([0.0, 0, 1, 1])
    limits = torch.tensor([width, height, width, height]) - 1
    expected = torch.minimum(inclusive.clamp(min=0), limits) + torch.tensor([0.0, 0, 1, 1])
    assert torch.equal(benchmark, expected)
    assert benchmark[:2].tolist() == [[0, 0, 1, 1], [79, 63, 80, 64]]  # one pixel
    others = above(found, SIZE, ModelConfig(convention="rounded"), 0.5).boxes
    assert torch.equal(others, clip_boxes_to_image(boxes, list(SIZE)))


@pytest.mark.parametrize("iou", [0.3, 0.7])
def test_boxes_stay_in_the_image_and_scores_fall(iou):
    torch.manual_seed(2)
    _, kept = detect(torch.rand(COUNT, 3), 5 * torch.randn(COUNT, 4), 0.05, 1000, 100, iou)
    assert (kept.boxes[:, 0::2].clamp(0, SIZE[1]) == kept.boxes[:, 0::2]).all()
    assert (kept.boxes[:, 1::2].clamp(0, SIZE[0]) == kept.boxes[:, 1::2]).all()
    assert (kept.scores.diff() <= 0).all()
