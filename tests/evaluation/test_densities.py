"""Histograms of scores, and how far they lie apart, against the scores themselves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drrepro.config import compose
from drrepro.data.splits import open_split
from drrepro.detection import detect
from drrepro.errors import UsageError
from drrepro.evaluation.bootstrap import draw_counts
from drrepro.evaluation.densities import BINS, EDGES, FINE, Densities, as_bins, resampled_separation, separation
from drrepro.models.anchors import match
from drrepro.models.retinanet import build_detector
from drrepro.runs.kept import read_densities, write_densities
from tests.experiments.test_sweep import TINY

SCORES = st.lists(st.floats(-25, 25, width=32), min_size=1, max_size=60)


def histogram(scores):
    return np.bincount(np.searchsorted(EDGES, scores, side="right"), minlength=FINE)


def test_fine_bins_are_ordered_and_fall_into_those_of_the_figure():
    assert (np.diff(EDGES) > 0).all()
    assert EDGES[0] < 1e-7 < 1 - 2e-8 < EDGES[-1] < 1
    scores = np.random.default_rng(0).uniform(size=10_000) ** 4
    expected, _ = np.histogram(scores, BINS, (0, 1))
    np.testing.assert_array_equal(as_bins(histogram(scores)), expected)


@given(SCORES, SCORES)
def test_separation_is_that_of_the_scores(background, foreground):
    below, above = (1 / (1 + np.exp(-np.array(logits, np.float64))) for logits in (background, foreground))
    gap, overlap, auc = separation(histogram(below), histogram(above))
    assert abs(gap - (above.mean() - below.mean())) <= 1 / BINS + 1e-12  # which the bins may hide
    shares = [np.histogram(scores, BINS, (0, 1))[0] / len(scores) for scores in (below, above)]
    assert overlap == pytest.approx(np.minimum(*shares).sum())
    below, above = (np.searchsorted(EDGES, scores, side="right") for scores in (below, above))
    pairs = np.sign(above[:, None] - below[None, :])
    assert auc == pytest.approx((1 + pairs.mean()) / 2)


def test_no_foreground_or_no_background_has_no_separation():
    one = np.eye(FINE)[7]
    assert np.isnan(separation(np.zeros(FINE), one)).all()
    assert np.isnan(separation(one, np.zeros(FINE))).all()


def test_resampling_is_evaluating_the_images_that_were_drawn():
    counts = np.random.default_rng(0).poisson(0.2, (2, 7, FINE)).astype(np.int32)
    draws = draw_counts(7, 5)
    found = resampled_separation(counts, draws)
    for b, drawn in enumerate(draws):
        again = counts[:, np.repeat(np.arange(7), drawn)].sum(axis=1)
        np.testing.assert_allclose(found[:, b], separation(*again), atol=1e-12)
    with pytest.raises(ValueError, match="draws are of 8 images, the densities of 7"):
        resampled_separation(counts, draw_counts(8, 5))


def test_scores_are_counted_as_each_matcher_labels_them(data_folder, monkeypatch):
    """Against one image, class and anchor after the other."""
    config = compose([*TINY, "loss=focal", "evaluation.images_per_batch=3", "evaluation.density_matchers=[[0.6,0.2]]"])
    dataset = open_split(config.data, "test", data_folder)
    model = build_detector(config, len(dataset.classes), torch.device("cpu"))
    seen, real = [], detect.propose

    def propose(model, batch, *rest):
        seen.append(batch)
        return real(model, batch, *rest)

    monkeypatch.setattr(detect, "propose", propose)
    _, densities = detect.detect(model, dataset, config, [0.4], torch.device("cpu"), lambda done, total: None)
    assert list(densities.counts) == [(0.5, 0.4), (0.6, 0.2)]
    for (fg_iou, bg_iou), counts in densities.counts.items():
        expected = {}
        for batch in seen:
            with torch.inference_mode():
                found = model(batch.images)[0].sigmoid()
            anchors = torch.cat(model.anchors_of(batch.images))
            matcher = replace(config.matcher, fg_iou=fg_iou, bg_iou=bg_iou)
            labels, _ = match(anchors, batch.boxes, batch.labels, matcher)
            for sample, own, scores in zip(batch.samples, labels, found, strict=True):
                positive = torch.zeros_like(scores, dtype=torch.bool)
                for anchor in (own > 0).nonzero()[:, 0]:
                    positive[anchor, own[anchor] - 1] = True
                negative = ~positive & (own >= 0)[:, None]
                expected[sample.id] = [histogram(scores[mask].double().numpy()) for mask in (negative, positive)]
        ordered = np.stack([expected[i] for i in sorted(expected)], axis=1)
        np.testing.assert_array_equal(counts, ordered)


def test_densities_are_kept_and_damaged_ones_refused(tmp_path):
    counts = np.arange(2 * 3 * FINE, dtype=np.int32).reshape(2, 3, FINE)
    write_densities(tmp_path, Densities({(0.5, 0.4): counts, (0.5, 0.5): counts + 1}))
    path = tmp_path / "densities.npz"
    found = read_densities(path)
    assert found.images == 3
    np.testing.assert_array_equal(found.counts[0.5, 0.5], counts + 1)
    for wrong in (counts[:, :, 1:], -counts, counts.astype(np.float64)):
        write_densities(tmp_path, Densities({(0.5, 0.4): wrong}))
        with pytest.raises(UsageError, match=r"densities\.npz: not readable .*; remove it"):
            read_densities(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UsageError, match="not readable"):
        read_densities(path)
