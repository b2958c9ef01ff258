"""Paired bootstrap over test images: AP of resampled image sets, from one matching.

An image that is drawn twice counts twice, with its detections and its objects, as if pycocotools evaluated a set in
which each copy has an id of its own and the ids of the copies follow each other. pycocotools sorts by falling score,
stably, over images by id, so between images the copies of a detection stay together and an integer weight does for
them. Within an image they do not: detections x, y of one class with the same score and their copies are sorted
x y x y, so where that order matters each copy has a place of its own.

Legend: B resamples, I images, n places of detections of a class, M matched ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from drrepro.evaluation.coco import RECALLS, Matches

RESAMPLES = 1000
CELLS = 2**20  # detections of a class times resamples that are held at once: 4 MB, which the caches hold
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.float32]


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
    drawn = np.ascontiguousarray(counts.T, np.float32)  # (I, B); exact, as are sums of whole numbers below 2^24
    total = np.zeros((len(thresholds), len(counts)))
    for k, begin, end in zip(range(classes), matches.starts, matches.starts[1:], strict=False):
        if not positives[k].any():
            continue
        flags = matches.true[0][:, begin:end], matches.false[0][:, begin:end]
        places = _places(matches.scores[begin:end], matches.images[begin:end], *flags, int(counts.max(initial=1)))
        kept = [int(np.count_nonzero(places.scores > threshold)) for threshold in thresholds]
        step = max(CELLS // max(end - begin, 1), 1)
        for own in (slice(start, start + step) for start in range(0, len(counts), step)):
            total[:, own] += _class_ap(places, kept, drawn[:, own], positives[k, own])
    with np.errstate(invalid="ignore"):
        mean: Floats = total / (positives > 0).sum(axis=0)
    return mean


@dataclass(frozen=True)
class _Places:
    """The detections of a class and, where these matter one by one, their copies, by falling score."""

    scores: Floats  # (n,)
    images: npt.NDArray[np.int32]  # (n,)
    copies: Ints  # (n,) there if its image is drawn so often, from 1 on; 0: all copies of a detection at once
    true: Flags  # (10, n)
    false: Flags  # (10, n)

    def weights(self, drawn: Weights) -> Weights:
        """Return (n, B): how often what stands at each place is there, from that of the images, (I, B)."""
        weights = drawn[self.images]
        single = self.copies > 0
        weights[single] = weights[single] >= self.copies[single, None]
        return weights


def _class_ap(places: _Places, kept: list[int], drawn: Weights, positives: Ints) -> Floats:
    """Return (thresholds, B): AP of the first ``kept`` places, the mean over the IoU thresholds; 0 without an object.

    Precision has its peaks at matched detections, so the curve is followed there only.
    """
    weights, peaks = places.weights(drawn), np.flatnonzero(places.true.any(axis=0))
    upto = np.add.reduceat(weights[: peaks.max(initial=-1) + 1], np.append(0, peaks + 1)[:-1], axis=0).cumsum(axis=0)
    found = np.arange(positives.max() + 1)[:, None] / np.maximum(positives, 1)
    passed = np.searchsorted(RECALLS, found, side="right").astype(np.float64)  # recall thresholds, by objects found
    result = np.zeros((len(kept), len(positives)))
    for hit, miss in zip(places.true, places.false, strict=True):
        hits, ignored = np.flatnonzero(hit), np.flatnonzero(~hit & ~miss)
        tp = weights[hits].cumsum(axis=0)
        counted = upto[np.searchsorted(peaks, hits)] - _before(hits, ignored, weights[ignored])  # true and false ones
        precision = tp / (counted.astype(np.float64) + np.spacing(1))  # (M, B)
        reached = np.take_along_axis(passed, tp.astype(np.int64), axis=0)
        gained = reached.copy()  # recall thresholds that each hit is the first to reach
        gained[1:] -= reached[:-1]
        result += _areas(precision, gained, np.searchsorted(hits, kept).tolist())
    return np.where(positives > 0, result / len(places.true), 0.0)


def _before(hits: Ints, others: Ints, weights: Weights) -> Weights:
    """Return (M, B): what the others, of weights (len(others), B), sum up to before each of the M hits."""
    upto = np.zeros((len(weights) + 1, weights.shape[1]), np.float32)
    weights.cumsum(axis=0, out=upto[1:])
    return upto[np.searchsorted(others, hits)]


def _areas(precision: Floats, gained: Floats, ends: list[int]) -> Floats:
    """Return (len(ends), B): of the first hits, as many as each of ``ends`` says, the envelope averaged at RECALLS.

    ``precision`` and ``gained`` (M, B); recalls never reached count 0.
    """
    envelope, areas = np.empty_like(precision), {}
    for begin, end in pairwise([0, *sorted(set(ends))]):  # the hits from begin on lift the envelope of those before
        envelope[begin:end] = np.maximum.accumulate(precision[begin:end][::-1], axis=0)[::-1]
        np.maximum(envelope[:begin], envelope[begin : begin + 1], out=envelope[:begin])
        areas[end] = np.einsum("mb,mb->b", envelope[:end], gained[:end]) / len(RECALLS)
    return np.stack([areas[end] for end in ends])


def _places(scores: Floats, images: npt.NDArray[np.int32], true: Flags, false: Flags, copies: int) -> _Places:
    """Return where detections stand: each at one place, weighted with the count of its image.

    At as many as there can be copies, each weighted 0 or 1, if it shares image and score with another and one of them
    is matched where the other is not.
    """
    begins = (np.diff(scores, prepend=np.inf) != 0) | (np.diff(images, prepend=-1) != 0)
    tie = np.cumsum(begins) - 1  # which tie, of one image and score, a detection belongs to
    split = _mixed(np.flatnonzero(begins), true, false)[tie]
    repeats = np.where(split, copies, 1)
    order = np.repeat(np.arange(len(scores)), repeats)
    firsts = np.cumsum(repeats) - repeats  # where the copies of each detection begin
    copy = np.arange(len(order)) - np.repeat(firsts, repeats)  # 0 for the first
    by_tie = np.lexsort((order, copy, tie[order]))  # within a tie: x y x y
    order, copy = order[by_tie], copy[by_tie]
    number = np.where(split[order], copy + 1, 0)
    return _Places(scores[order], images[order], number, true[:, order], false[:, order])


def _mixed(starts: Ints, true: Flags, false: Flags) -> Flags:
    """Return of each tie whether one of its detections is matched where another is not, at any IoU threshold."""
    hit, miss = (np.add.reduceat(flags, starts, axis=1, dtype=np.bool_) for flags in (true, false))
    mixed: Flags = np.any(hit & miss, axis=0)
    return mixed
