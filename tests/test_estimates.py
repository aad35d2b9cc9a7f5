"""What our trials say of two rows: pairs where they share victims, two samples otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from leakboard.board import estimates
from leakboard.board.estimates import Sample
from leakboard.record import intervals


def sample(values: list[float], metric: str = "psnr", victims: str = "abcdefghij", batch: int = 1) -> Sample:
    return Sample(metric, np.array(values), tuple(victims[: len(values)]), batch)


def test_most_trials_win_and_cuda_on_a_tie() -> None:
    cpu, cuda, short = sample([0.0] * 3), sample([1.0] * 3), sample([1.0] * 2)
    assert estimates.most_trials({"cpu": cpu, "cuda": cuda}) is cuda
    assert estimates.most_trials({"cuda": short, "cpu": cpu}) is cpu
    assert estimates.most_trials({}) is None


def test_a_difference_is_paired_over_common_victims() -> None:
    got = estimates.difference(sample([5.0, 7.0, 9.5]), sample([1.0, 2.0], victims="bc"))
    assert (got.ours, got.n) == (6.75, 2)
    assert (got.low, got.high) == pytest.approx(intervals.of_mean(np.array([6.0, 7.5])))


def test_other_victims_are_another_sample() -> None:
    one, other = [5.0, 7.0, 9.0], [1.0, 2.0]
    got = estimates.difference(sample(one), sample(other, victims="xy"))
    assert (got.ours, got.n) == (5.5, 2)
    assert (got.low, got.high) == intervals.of_difference(np.array(one), np.array(other), False)


def test_a_difference_of_rates_is_no_point_where_all_trials_agree() -> None:
    got = estimates.difference(sample([0.0] * 10, "exact"), sample([0.0] * 10, "exact"))
    assert got.ours == 0 and got.low < -0.3 and got.high > 0.3


def test_a_difference_of_medians_is_paired() -> None:
    never, late = [math.inf] * 10, [math.inf] * 3 + [5.0] * 7
    got = estimates.difference(sample(never, "seconds_to_20"), sample(late, "seconds_to_20"))
    assert got.ours == math.inf and (got.low, got.high) == (0.0, math.inf)
    apart = estimates.difference(sample(late, "seconds_to_20"), sample([1.0] * 9, "seconds_to_20", victims="klmnopqrs"))
    assert apart.ours == 4.0 and math.isnan(apart.low)


def test_an_absent_value_makes_the_estimate_absent() -> None:
    got = estimates.estimate(np.array([1.0, math.nan]), "lpips")
    assert not got.exists and got.n == 2
    assert not estimates.difference(sample([1.0, math.nan]), sample([1.0, 2.0])).exists
