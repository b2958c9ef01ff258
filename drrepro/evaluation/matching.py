"""COCO's matching of detections to objects, of all images, classes, areas and IoU thresholds at once.

The rules are those of pycocotools' COCOeval for boxes. In each image and class, which are called a group here,
detections choose by falling score. Each takes the object that it overlaps most among those that no better detection
has taken and that it overlaps enough, of equals the last; objects that are to be ignored (crowds, and those outside the
range of areas) only where there is no other. A crowd can be taken any number of times.

Groups do not touch each other, so the first detections of all groups choose at once, then the second, and so on.
Legend: N detections, G objects, P pairs, 4 ranges of areas, 10 IoU thresholds.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

AREAS = ("all", "small", "medium", "large")
LOWEST = np.array([0, 0, 32**2, 96**2], dtype=np.float64)  # px², by area
LARGEST = np.array([1e10, 32**2, 96**2, 1e10])
IOUS = np.linspace(0.5, 0.95, 10)
LIMIT = 100  # detections of an image and class; what comes after the best is left out
PAIRS = 2**20  # whose IoU is calculated at once: some 200 MB


@dataclass(frozen=True)
class Objects:
    """The ground truth, sorted by group, within a group in the order of the annotations."""

    groups: Ints  # (G,)
    boxes: Floats  # (G, 4) x, y, w, h
    areas: Floats  # (G,) as annotated
    crowd: Flags  # (G,)
    named: Flags  # (G,) the annotation's id is not 0: what is matched to annotation 0, pycocotools counts as unmatched

    def counts(self) -> Flags:
        """Return (G, 4): whether an object is to be found, at each range of areas; otherwise it is ignored."""
        return ~self.crowd[:, None] & ~_outside(self.areas)


@dataclass(frozen=True)
class Detections:
    """What was detected, sorted by group, then by falling score, then in the order given; at most LIMIT of a group."""

    groups: Ints  # (N,)
    boxes: Floats  # (N, 4) x, y, w, h
    scores: Floats  # (N,)
    ranks: Ints  # (N,) place in the group


@dataclass(frozen=True)
class Pairs:
    """Detections and objects of one group that overlap enough for some threshold, sorted by detection, then object."""

    detections: Ints  # (P,)
    objects: Ints  # (P,)
    ious: Floats  # (P,)


def sort_objects(groups: Ints, boxes: Floats, areas: Floats, crowd: Flags, named: Flags) -> Objects:
    """Return objects in the order that matching needs."""
    order = np.argsort(groups, kind="stable")
    return Objects(groups[order], boxes[order], areas[order], crowd[order], named[order])


def sort_detections(groups: Ints, boxes: Floats, scores: Floats) -> Detections:
    """Return detections in the order that matching needs, without those beyond LIMIT."""
    order = np.lexsort((-scores, groups))
    ranks = _ranks(groups[order])
    order, ranks = order[ranks < LIMIT], ranks[ranks < LIMIT]
    return Detections(groups[order], boxes[order], scores[order], ranks)


def match(detections: Detections, objects: Objects) -> tuple[Flags, Flags]:
    """Return (N, 4, 10) each: whether a detection is matched to an object that counts, whether it is to nothing.

    Neither holds of a detection that is to be ignored.
    """
    shape = (len(detections.scores), len(AREAS), len(IOUS))
    true, settled = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)  # settled: in no case to nothing
    taken = np.zeros((len(objects.groups), *shape[1:]), np.bool_)
    pairs, counts = _find_pairs(detections, objects), objects.counts()
    preference = _preference(pairs, counts)
    for turn, firsts in _turns(pairs, detections.groups):
        own = pairs.objects[turn]
        free = ~taken[own] & (pairs.ious[turn, None] >= IOUS)[:, None]
        wish = np.where(free, preference[turn, :, None], 0)
        best = np.maximum.reduceat(wish, firsts, axis=0)
        chosen = (wish == np.repeat(best, np.diff(firsts, append=len(turn)), axis=0)) & (wish > 0)
        taken[own] |= chosen & ~objects.crowd[own, None, None]
        counted, named = counts[own, :, None], objects.named[own, None, None]
        who = pairs.detections[turn[firsts]]
        true[who] = np.logical_or.reduceat(chosen & counted & named, firsts, axis=0)
        settled[who] = np.logical_or.reduceat(chosen & (named | ~counted), firsts, axis=0)
    outside = _outside(detections.boxes[:, 2] * detections.boxes[:, 3])
    return true, ~settled & ~outside[..., None]


def _find_pairs(detections: Detections, objects: Objects) -> Pairs:
    firsts, ends = (np.searchsorted(objects.groups, detections.groups, side) for side in ("left", "right"))
    upto = (ends - firsts).cumsum()
    cuts = np.searchsorted(upto, np.arange(PAIRS, upto[-1] if len(upto) else 0, PAIRS))
    none = np.zeros(0, np.int64)
    parts = [(none, none, np.zeros(0))]
    for own in np.split(np.arange(len(upto)), cuts):
        sizes = ends[own] - firsts[own]
        one = np.repeat(own, sizes)
        other = np.repeat(firsts[own], sizes) + _ranks(one)
        ious = box_ious(detections.boxes[one], objects.boxes[other], objects.crowd[other])
        near = ious >= IOUS[0]
        parts.append((one[near], other[near], ious[near]))
    return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def box_ious(ones: Floats, others: Floats, crowd: Flags) -> Floats:
    """Return (P,) IoU of boxes x, y, w, h, both (P, 4); of a crowd, the part of the first box that lies inside.

    Calculated in pycocotools' order, so that what is equal there is equal here, to the last bit.
    """
    sides = [
        np.minimum(ones[:, i + 2] + ones[:, i], others[:, i + 2] + others[:, i]) - np.maximum(ones[:, i], others[:, i])
        for i in (0, 1)
    ]
    shared, own = sides[0] * sides[1], ones[:, 2] * ones[:, 3]
    union = np.where(crowd, own, own + others[:, 2] * others[:, 3] - shared)
    overlap = (sides[0] > 0) & (sides[1] > 0)
    ious: Floats = np.divide(shared, union, out=np.zeros(len(ones)), where=overlap)
    return ious


def _preference(pairs: Pairs, counts: Flags) -> npt.NDArray[np.int32]:
    """Return (P, 4) numbers from 1 on, of which a detection chooses the highest that it can have; no two are equal."""
    by_iou = np.argsort(pairs.ious, kind="stable")  # of equals the last is preferred
    preference = np.empty(len(by_iou), np.int32)
    preference[by_iou] = np.arange(1, len(by_iou) + 1)
    return preference[:, None] + len(by_iou) * counts[pairs.objects].astype(np.int32)


def _turns(pairs: Pairs, groups: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield the pairs of the detections that choose at once, and where those of each detection begin among them."""
    begins = np.diff(pairs.detections, prepend=-1) > 0
    turns = _ranks(groups[pairs.detections[begins]])  # of each detection that has a pair
    by_pair = turns[begins.cumsum() - 1]
    order = np.argsort(by_pair, kind="stable")
    for own in np.split(order, np.bincount(by_pair).cumsum()[:-1]) if len(order) else ():
        yield own, np.flatnonzero(begins[own])


def _outside(areas: Floats) -> Flags:
    """Return (n, 4): whether areas (n,) are outside of each range; its ends are inside."""
    return (areas[:, None] < LOWEST) | (areas[:, None] > LARGEST)


def _ranks(ordered: Ints) -> Ints:
    """Return of each value, of which equals stand together, how many equals stand before it."""
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))
    return np.arange(len(ordered)) - np.repeat(begins, np.diff(begins, append=len(ordered)))
