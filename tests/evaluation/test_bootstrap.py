import json

import numpy as np
import pytest

from drrepro.bench.bootstrap import draw_problem, resampled_set
from drrepro.evaluation.bootstrap import draw_counts, resampled_ap
from drrepro.evaluation.coco import match_detections, summarize
from tests.conftest import shared
from tests.evaluation.reference import pycocotools_numbers
from tests.evaluation.test_coco import problem


def brute_force(truth, found, threshold, counts):
    sets = (resampled_set(truth, [d for d in found if d["score"] > threshold], own) for own in counts)
    return np.array([pycocotools_numbers(*own)[0] for own in sets])


@pytest.mark.parametrize("seed", range(6))
def test_equals_pycocotools_on_the_resampled_set_with_ties_between_and_within_images(seed):
    truth, found = problem(seed, images=8, detections=80)
    counts = draw_counts(8, 20, seed)
    matches = match_detections(truth, found)
    for threshold, ours in zip((0.05, 0.5), resampled_ap(matches, (0.05, 0.5), counts), strict=True):
        np.testing.assert_allclose(ours, brute_force(truth, found, threshold, counts), rtol=0, atol=1e-9)


def test_the_paired_difference_equals_pycocotools():
    truth, one, other = draw_problem(images=24, classes=10, detections=20, seed=0)
    counts = draw_counts(24, 20, seed=1)
    ours = [resampled_ap(match_detections(truth, found), [0.05], counts)[0] for found in (one, other)]
    theirs = [brute_force(truth, found, 0.05, counts) for found in (one, other)]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours[0] - ours[1], theirs[0] - theirs[1], rtol=0, atol=1e-9)
    assert np.ptp(ours[0] - ours[1]) > 0.01


def test_equals_pycocotools_on_coco_eval100():
    folder = shared("coco_eval100")
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    found = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    counts = draw_counts(len(truth["images"]), 4)
    ours = resampled_ap(match_detections(truth, found), [0.5], counts)[0]
    np.testing.assert_allclose(ours, brute_force(truth, found, 0.5, counts), rtol=0, atol=1e-9)


def test_each_image_once_is_the_plain_ap():
    truth, found = problem(0, detections=60)
    matches = match_detections(truth, found)
    ours = resampled_ap(matches, [0.0, 0.3], np.ones((1, 6), dtype=np.int64))[:, 0]
    assert ours == pytest.approx([summarize(matches, t)["AP"] for t in (0.0, 0.3)], abs=1e-12)


def test_a_resample_without_an_object_has_no_ap_and_without_a_detection_none_is_found():
    truth, found = problem(0)
    nothing = np.zeros((1, 6), dtype=np.int64)
    assert np.isnan(resampled_ap(match_detections(truth, found), [0.0], nothing)).all()
    assert resampled_ap(match_detections(truth, []), [0.0], draw_counts(6, 3)).tolist() == [[0.0] * 3]


def test_counts_of_other_images_are_refused():
    with pytest.raises(ValueError, match="counts are of 7 images, the matches of 6"):
        resampled_ap(match_detections(*problem(0)), [0.0], draw_counts(7, 3))


def test_draws_are_of_as_many_images_and_the_same_for_the_same_seed():
    counts = draw_counts(50, 200, seed=3)
    assert (counts.sum(axis=1) == 50).all()
    assert (counts == draw_counts(50, 200, seed=3)).all()
    assert (counts != draw_counts(50, 200, seed=4)).any()
