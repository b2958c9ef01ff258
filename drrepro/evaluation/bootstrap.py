"""Paired bootstrap over test images: AP of resampled image sets, from one matching.

An image that is drawn twice counts twice, with its detections and its objects, as if pycocotools evaluated a set in
which each copy has an id of its own and the ids of the copies follow each other. pycocotools sorts by falling score,
stably, over images by id, so between images the copies of a detection stay together and an integer weight does for
them. Within an image they do not: detections x, y of one class with the same score and their copies are sorted
x y x y, so where that order matters each copy is a column of its own.

Legend: B resamples, I images, N detections of a class, C distinct columns of weights, M matched detections.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from drrepro.evaluation.coco import RECALLS, Matches

RESAMPLES = 1000
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def draw_counts(images: int, resamples: int = RESAMPLES, seed: int = 0) -> Ints:
    """Return (B, I): how often each image is among ``images`` drawn with replacement, in each resample.

    The same arguments give the same draws, which is what makes two runs on the same images a pair.
    """
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)


def resampled_ap(matches: Matches, thresholds: Sequence[float], counts: npt.NDArray[np.integer]) -> Floats:
    """Return (len(thresholds), B): AP, as a fraction, of each resample's detections above each score threshold.

    ``counts`` (B, I) from `draw_counts`. A class without an object in a resample is left out of its mean, NaN where
    that leaves none. Raises ValueError unless there is a count for each image.
    """
    classes, images = matches.positives.shape[1:]
    if counts.shape[1] != images:
        raise ValueError(f"counts are of {counts.shape[1]} images, the matches of {images}")
    positives = matches.positives[0] @ counts.T.astype(np.int64)  # (K, B)
    total = np.zeros((len(thresholds), len(counts)))
    for k in range(classes):
        total += np.where(positives[k] > 0, _class_ap(matches, k, thresholds, counts, positives[k]), 0.0)
    with np.errstate(invalid="ignore"):
        mean: Floats = total / (positives > 0).sum(axis=0)
    return mean


def _class_ap(
    matches: Matches, k: int, thresholds: Sequence[float], counts: npt.NDArray[np.integer], positives: Ints
) -> Floats:
    """Return (thresholds, B): AP of a class, the mean over the IoU thresholds.

    Precision has its peaks at matched detections, so the curve is followed there only.
    """
    own = slice(matches.starts[k], matches.starts[k + 1])
    scores, true, false = matches.scores[own], matches.true[0][:, own], matches.false[0][:, own]
    order, column, weights = _columns(scores, matches.images[own], true, false, counts)
    result = np.zeros((len(thresholds), len(counts)))
    for hit, miss in zip(true[:, order], false[:, order], strict=True):
        hits, misses = np.flatnonzero(hit), np.flatnonzero(miss)
        before = np.zeros((len(hits) + 1, len(weights)), np.float32)  # misses of each column since the last hit
        np.add.at(before, (np.searchsorted(hits, misses), column[misses]), 1)
        fp = before[:-1].cumsum(axis=0) @ weights  # (M, B); float32 is exact, these are whole numbers below 2^24
        tp = weights[column[hits]].cumsum(axis=0, dtype=np.float64)
        precision = tp / (tp + fp + np.spacing(1))
        reached = np.searchsorted(RECALLS, tp / np.maximum(positives, 1), side="right")
        gained = np.diff(reached, axis=0, prepend=0)  # recall thresholds that each hit is the first to reach
        kept = [int(np.count_nonzero(scores[order[hits]] > threshold)) for threshold in thresholds]
        areas = {m: _area(precision[:m], gained[:m]) for m in set(kept)}
        result += np.stack([areas[m] for m in kept])
    return result / len(true)


def _area(precision: Floats, gained: Ints) -> Floats:
    """Return (B,): the envelope of precision (M, B), averaged at RECALLS; recalls never reached count 0."""
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    area: Floats = np.einsum("mb,mb->b", envelope, gained) / len(RECALLS)
    return area


def _columns(
    scores: Floats, images: npt.NDArray[np.int32], true: Flags, false: Flags, counts: npt.NDArray[np.integer]
) -> tuple[Ints, Ints, npt.NDArray[np.float32]]:
    """Return which detection stands at each place, which column of weights it has, and the weights (C, B).

    A detection stands at one place, weighted with the count of its image; at as many as there can be copies, each
    weighted 0 or 1, if it shares image and score with another and one of them is matched where the other is not.
    """
    begins = (np.diff(scores, prepend=np.inf) != 0) | (np.diff(images, prepend=-1) != 0)
    tie = np.cumsum(begins) - 1  # which tie, of one image and score, a detection belongs to
    split = _mixed(np.flatnonzero(begins), true, false)[tie]
    copies = int(counts.max(initial=1))
    repeats = np.where(split, copies, 1)
    order = np.repeat(np.arange(len(scores)), repeats)
    firsts = np.cumsum(repeats) - repeats  # where the copies of each detection begin
    copy = np.arange(len(order)) - np.repeat(firsts, repeats)  # 0 for the first
    by_tie = np.lexsort((order, copy, tie[order]))  # within a tie: x y x y
    order, copy = order[by_tie], copy[by_tie]
    which = np.where(split[order], copy + 1, 0)  # 0: all copies at once
    code = images[order].astype(np.int64) * (copies + 1) + which
    distinct, column = np.unique(code, return_inverse=True)
    image, which = np.divmod(distinct, copies + 1)
    drawn = counts.T[image]
    at_least = drawn >= which[:, None]  # whether the image was drawn so often that this copy is there
    weights = np.where(which[:, None] > 0, at_least, drawn).astype(np.float32)
    return order, column, weights


def _mixed(starts: Ints, true: Flags, false: Flags) -> Flags:
    """Return of each tie whether one of its detections is matched where another is not, at any IoU threshold."""
    hit, miss = (np.add.reduceat(flags, starts, axis=1, dtype=np.bool_) for flags in (true, false))
    mixed: Flags = np.any(hit & miss, axis=0)
    return mixed
