"""Intervals that cover: by simulation, against scipy, and at the borders (rates near 0 and 1, two trials, one)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from leakboard.record import intervals

SIMULATIONS = 1000
LEAST = 0.95 - 3 * math.sqrt(0.95 * 0.05 / SIMULATIONS)  # what chance alone may take from a true 95 %
SIZES = (2, 5, 10, 30, 100)


def coverage(interval: Callable[[], tuple[float, float]], truth: float) -> float:
    found = [interval() for _ in range(SIMULATIONS)]
    return float(np.mean([low <= truth + 1e-12 and truth - 1e-12 <= high for low, high in found]))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def batches(rng: np.random.Generator, share: float, size: int, images: int, alike: float) -> np.ndarray:
    """Shares (size,) over batches of `images` whose images are alike: a beta-binomial law."""
    loose = (1 - alike) / alike
    return rng.binomial(images, rng.beta(share * loose, (1 - share) * loose, size=size)) / images


@pytest.mark.parametrize("size", SIZES)
def test_a_mean_is_covered(size: int, rng: np.random.Generator) -> None:
    assert coverage(lambda: intervals.of_mean(rng.normal(size=size)), 0) >= LEAST


@pytest.mark.parametrize("size", [30, 100])
def test_a_skewed_mean_is_covered_as_theory_says(size: int, rng: np.random.Generator) -> None:
    """Student's t would cover .95 - .893 / n of an exponential law (Hall 1992, the two-sided Edgeworth term)."""
    assert coverage(lambda: intervals.of_mean(rng.exponential(size=size)), 1) >= LEAST - 0.893 / size


@pytest.mark.parametrize("size", [5, 10])
def test_a_skewed_mean_of_few_trials_is_not_covered(size: int, rng: np.random.Generator) -> None:
    """What is known and stated (README): of few trials of a skewed law no interval of the mean is a 95 % one."""
    assert 0.8 < coverage(lambda: intervals.of_mean(rng.exponential(size=size)), 1) < LEAST


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.98])
@pytest.mark.parametrize("size", SIZES)
def test_a_rate_is_covered(size: int, share: float, rng: np.random.Generator) -> None:
    assert coverage(lambda: intervals.of_share((rng.random(size) < share).astype(float)), share) >= LEAST


@pytest.mark.parametrize("alike", [0.01, 0.2])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("size", SIZES)
def test_a_share_over_batches_is_covered(size: int, share: float, alike: float, rng: np.random.Generator) -> None:
    assert coverage(lambda: intervals.of_share(batches(rng, share, size, 10, alike), 10), share) >= LEAST - 0.02


@pytest.mark.parametrize("size", SIZES)
def test_a_difference_of_rates_is_covered(size: int, rng: np.random.Generator) -> None:
    for one, other in ((0.9, 0.8), (0.5, 0.5), (0.99, 0.95)):

        def drawn(one: float = one, other: float = other) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            luck, own = rng.random(size), rng.random(size)  # the same victims are hard for both
            same = np.where(rng.random(size) < 0.5, luck, own)
            return (luck < one).astype(float), (same < other).astype(float), (own < other).astype(float)

        def paired() -> tuple[float, float]:
            left, same, _ = drawn()
            return intervals.of_share_difference(left, same, True, (1, 1))

        def apart() -> tuple[float, float]:
            left, _, own = drawn()
            return intervals.of_share_difference(left, own, False, (1, 1))

        assert coverage(paired, one - other) >= LEAST - 0.05 * (size == 2)
        assert coverage(apart, one - other) >= LEAST


@pytest.mark.parametrize("size", SIZES)
def test_a_difference_of_means_of_two_samples_is_covered(size: int, rng: np.random.Generator) -> None:
    def apart() -> tuple[float, float]:
        return intervals.of_difference(rng.normal(size=size), 3 * rng.normal(size=size + 3), False)

    assert coverage(apart, 0) >= LEAST - 0.01


@pytest.mark.parametrize("size", [6, 10, 30, 100])
def test_a_median_is_covered(size: int, rng: np.random.Generator) -> None:
    assert coverage(lambda: intervals.of_median(rng.exponential(size=size)), math.log(2)) >= LEAST


def test_they_are_those_of_scipy(rng: np.random.Generator) -> None:
    few, many = rng.normal(size=12), rng.exponential(size=400)
    t = stats.t.interval(0.95, 11, few.mean(), stats.sem(few))
    assert intervals.of_mean(few) == pytest.approx(t)
    bca = stats.bootstrap((many,), np.mean, n_resamples=20000, method="BCa", rng=1).confidence_interval
    assert intervals.of_mean(many) == pytest.approx((bca.low, bca.high), abs=0.01)
    for successes, count in ((0, 30), (1, 30), (29, 30), (100, 100), (37, 100)):
        exact = stats.binomtest(successes, count).proportion_ci(method="exact")
        values = np.r_[np.ones(successes), np.zeros(count - successes)]
        assert intervals.of_share(values) == pytest.approx((exact.low, exact.high))
    welch = stats.ttest_ind(few, many, equal_var=False).confidence_interval()
    assert intervals.of_difference(few, many, False) == pytest.approx((welch.low, welch.high))
    ordered = np.sort(few)
    assert intervals.of_median(few) == (ordered[2], ordered[9])  # P(at most 2 of 12 below) = 0.019


def test_the_same_trials_give_the_same_interval(rng: np.random.Generator) -> None:
    values = rng.exponential(size=50)
    assert intervals.of_mean(values) == intervals.of_mean(values.copy())


def test_none_of_thirty_is_no_certainty() -> None:
    assert intervals.of_share(np.zeros(30)) == (0.0, pytest.approx(0.1157, abs=1e-4))
    low, high = intervals.of_share(np.ones(10), 100)  # batches without spread count as one image each
    assert (low, high) == (pytest.approx(0.6915, abs=1e-4), 1.0)
    low, high = intervals.of_share_difference(np.zeros(30), np.zeros(30), True, (4, 4))
    assert low < -0.1 and high > 0.1


def test_one_trial_has_no_interval_and_neither_has_what_is_not_finite() -> None:
    nothing = (
        intervals.of_mean(np.array([2.0])), intervals.of_share(np.array([0.5]), 10), intervals.of_median(np.ones(5)),
        intervals.of_mean(np.array([1.0, math.inf])), intervals.of_share(np.array([])), intervals.of_mean(np.array([])),
        intervals.of_difference(np.ones(1), np.ones(9), False),
        intervals.of_share_difference(np.array([0.5]), np.ones(3), False, (2, 2)),
    )  # fmt: skip
    assert all(math.isnan(end) for pair in nothing for end in pair)
    assert intervals.of_median(np.full(9, math.inf)) == (math.inf, math.inf)
    assert intervals.of_share(np.array([1.0])) == (pytest.approx(0.025), 1.0)
    assert intervals.of_mean(np.full(40, 100.0)) == (100.0, 100.0)


def test_equal_trials_leave_no_spread_however_their_mean_is_rounded():
    values = np.full(40, 0.235414146)
    assert values.std() > 0, "or this test tests nothing"
    low, high = intervals.of_mean(values)
    assert low == pytest.approx(values[0], rel=1e-12) and high == pytest.approx(values[0], rel=1e-12)
