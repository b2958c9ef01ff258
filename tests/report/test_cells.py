"""What is said of a mean over seeds, against draws of what it stands for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drrepro.report.cells import estimate, images_and_own, mean_of


def measurements(n, seeds, images, own, rng, resamples=1000):
    """Return n arrays whose resamples vary by ``images`` together and by ``own`` each for itself."""
    shared = rng.normal(0, images, resamples)
    return [np.append(0, shared + rng.normal(0, own, resamples)) + rng.normal(0, seeds) for _ in range(n)]


@pytest.mark.parametrize("n", [2, 3, 10])
def test_quantiles_are_those_of_resamples_with_students_t(n):
    rng = np.random.default_rng(n)
    cell = estimate(measurements(n, 1, 0.5, 0.2, rng))
    drawn = cell.value + rng.choice(cell.images, 400_000) + rng.standard_t(n - 1, 400_000) * cell.sd / math.sqrt(n)
    for q in (0.025, 0.5, 0.9):
        assert np.mean(drawn < cell.quantile(q)) == pytest.approx(q, abs=0.003)
        assert cell.below(cell.quantile(q)) == pytest.approx(q, abs=1e-6)
    assert (cell.low, cell.high) == cell.interval(0.95)
    assert cell.basis == "images and seeds"


def test_the_interval_of_a_single_seed_is_of_percentiles():
    cell = estimate([np.append(500, np.arange(1001.0))])
    assert (cell.low, cell.high) == pytest.approx((25, 975))
    assert cell.basis == "images"


def test_resamples_without_an_object_tell_nothing():
    cell = estimate([np.array([1.0, np.nan, 1.0, 1.0])])
    assert (cell.low, cell.high) == (1.0, 1.0)


def test_seeds_alone_have_the_interval_of_students_t():
    cell = estimate([np.array([value]) for value in (1.0, 2.0, 3.0)])
    reach = 4.302653 / math.sqrt(3)  # t of 2 degrees of freedom
    assert (cell.low, cell.high) == pytest.approx((2 - reach, 2 + reach), abs=1e-5)
    assert cell.basis == "seeds"


def test_seeds_that_agree_leave_the_images():
    cell = estimate([np.array([1.0, 0.0, 2.0])] * 3)
    assert (cell.sd, cell.below(0.5), cell.below(1.5)) == (0, 0.5, 0.5)
    assert math.isnan(estimate([]).low)


@given(st.integers(2, 8), st.floats(0.1, 2), st.floats(0, 2))
def test_what_seeds_have_of_their_own_is_not_counted_twice(n, images, own):
    rng = np.random.default_rng(0)
    measured = measurements(n, 1, images, own, rng, 4000)
    errors = np.stack(measured)[:, 1:] - np.stack(measured)[:, :1]
    common, each = images_and_own(errors)
    assert math.sqrt(common) == pytest.approx(images, abs=0.1 * (images + own))
    assert math.sqrt(each) == pytest.approx(own, abs=0.1 * (images + own) + 0.02)
    assert mean_of(measured).images.std() == pytest.approx(math.sqrt(common), rel=1e-6)
