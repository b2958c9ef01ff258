"""p values, Holm's procedure and the seeds that a difference needs, against what they are said to be."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drrepro.report.cells import estimate, mean_of
from drrepro.report.decision import ALPHA, POWER, detectable, holm, p_value, seeds_for, what_decides

VALUES = st.lists(st.floats(-5, 5), min_size=2, max_size=6).filter(lambda values: np.std(values) > 0.01)
BOUNDS = st.tuples(st.floats(-5, 5), st.one_of(st.just(math.inf), st.floats(0.1, 5))).map(
    lambda pair: (pair[0], pair[0] + pair[1])
)


@given(VALUES, BOUNDS)
def test_p_is_the_smallest_alpha_whose_interval_decides(values, bounds):
    cell = estimate([np.array([value]) for value in values])
    least, most = bounds
    p = p_value(cell, least, most)

    def decides(alpha):
        low, high = cell.interval(1 - alpha)
        return (least <= low and high <= most) or high < least or low > most

    if p < 0.99:
        assert decides(p * 1.001 + 1e-9)
    if p > 1e-6:
        assert not decides(p * 0.999)


def test_a_single_seed_decides_nothing():
    assert p_value(estimate([np.array([5.0, 4.9, 5.1])]), 0) == 1
    assert p_value(estimate([]), 0) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_decides_what_its_steps_do(p_values):
    decided, left = set(), dict(enumerate(p_values))
    while left:
        i = min(left, key=left.__getitem__)
        if left[i] * len(left) > ALPHA:
            break
        decided.add(i)
        del left[i]
    corrected = holm(p_values)
    assert {i for i, p in enumerate(corrected) if p <= ALPHA} == decided
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))


@pytest.mark.parametrize("images", [0.0, 0.3])
@pytest.mark.parametrize(("n", "alpha"), [(2, 0.05), (3, 0.05), (3, 0.01), (8, 0.05), (8, 0.005)])
def test_what_is_called_seen_is_decided_in_four_of_five_cases(n, alpha, images):
    """Student's t of many drawn experiments, whose spread is not the true one; of the images by the normal quantile."""
    rng = np.random.default_rng(0)
    shared = rng.normal(0, images, 1000) if images else np.empty(0)
    ends = math.sqrt((n - 1) / n) * np.resize([-1.0, 1.0], n)
    typical = replace(mean_of([np.append(v, v + shared) for v in ends]), sd=1.0)
    difference = detectable(typical, alpha)
    trials = 4000 if not images else 400
    values = difference + rng.normal(0, images, (trials, 1)) + rng.normal(0, 1, (trials, n))
    cells = (replace(typical, value=float(own.mean()), sd=float(own.std(ddof=1))) for own in values)
    seen = sum(p_value(cell, 0) <= alpha and cell.value > 0 for cell in cells)
    assert seen / trials == pytest.approx(POWER, abs=0.02 if not images else 0.06)


def test_seeds_are_the_fewest_that_see_the_difference():
    cell = estimate([np.array([value]) for value in (-1.0, 0.0, 1.0)])
    needed = seeds_for(cell, 1.0, ALPHA)
    assert needed == 10  # as tables of the power of the t test have it for an effect of 1 sd
    assert detectable(cell, ALPHA, needed) <= 1.0 < detectable(cell, ALPHA, needed - 1)
    assert what_decides(cell, 1.0, ALPHA) == "10 seeds"
    assert seeds_for(cell, 0.01, ALPHA) is None
    assert what_decides(cell, 0.01, ALPHA) == "more than 1000 seeds"
    images = estimate([np.append(0.0, np.linspace(-1, 1, 100)), np.append(0.1, np.linspace(-0.9, 1.1, 100))])
    assert what_decides(images, 0.5, ALPHA) == "more test images"
    assert what_decides(estimate([np.array([1.0])]), 1.0, ALPHA) == "more seeds"
