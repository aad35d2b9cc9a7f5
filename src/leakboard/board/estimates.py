"""What our trials say of a row, and of the difference of two: means with 95 % intervals. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leakboard.metrics import METRICS
from leakboard.record import intervals
from leakboard.record.aggregate import interval, median, metric_values, one_per_trial


@dataclass(frozen=True)
class Estimate:
    """A mean over n trials (of costs the median) and its 95 % interval; all NaN when there is none, the interval alone
    where n trials allow none.
    """

    ours: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0

    @property
    def exists(self) -> bool:
        return self.n > 0 and not math.isnan(self.ours)

    def beyond(self, limit: float) -> bool:
        """Whether all of the interval lies above."""
        return self.low > limit

    def below(self, limit: float) -> bool:
        return self.high < limit


@dataclass(frozen=True)
class Sample:
    """The values of one metric over the trials of a row, on one kind of device. batch: the images of one trial."""

    metric: str
    values: np.ndarray
    victims: tuple[str, ...]
    batch: int = 1

    def __len__(self) -> int:
        return len(self.values)


def samples(lines: pd.DataFrame, variant: str, metric: str, batch: int) -> dict[str, Sample]:
    """{device kind: what a row's trials scored}"""
    chosen = one_per_trial(lines[lines["variant"] == variant])
    return {str(kind): sample_of(group, metric, batch) for kind, group in chosen.groupby("device_kind")}


def sample_of(lines: pd.DataFrame, metric: str, batch: int) -> Sample:
    """What the lines of a row scored. Trials of two rows are a pair when they share the secret and their number."""
    victims = tuple(f"{sha}/{trial}" for sha, trial in zip(lines["victim_sha"], lines["trial"], strict=True))
    return Sample(metric, metric_values(lines, metric), victims, batch)


def most_trials(kinds: dict[str, Sample]) -> Sample | None:
    """That of the device kind with most trials, CUDA's on a tie."""
    best = max(kinds, key=lambda kind: (len(kinds[kind]), kind == "cuda", kind), default=None)
    return None if best is None else kinds[best]


def estimate(values: np.ndarray, metric: str, batch: int = 1) -> Estimate:
    """(n,) values of one metric -> its estimate; a value that is absent makes the whole absent, n stays shown."""
    if not len(values) or np.isnan(values).any():
        return Estimate(n=len(values))
    ours = median(values, metric) if METRICS[metric].average == "median" else float(values.mean())
    return Estimate(ours, *interval(values, metric, batch), len(values))


def score_of(lines: pd.DataFrame, variant: str, metric: str, batch: int) -> Estimate:
    """What a row's trials score, on the kind of device that has most of them."""
    chosen = most_trials(samples(lines, variant, metric, batch))
    return Estimate() if chosen is None else estimate(chosen.values, metric, chosen.batch)


def difference(left: Sample, right: Sample) -> Estimate:
    """left - right: over pairs of trials with the same victim where there are such, else of two samples.

    Of two samples n is that of the smaller one. Medians of two samples have no interval.
    """
    places = {victim: index for index, victim in enumerate(right.victims)}
    pairs = [(index, places[victim]) for index, victim in enumerate(left.victims) if victim in places]
    one, other, paired = left.values, right.values, bool(pairs)
    if paired:
        one, other = one[[mine for mine, _ in pairs]], other[[theirs for _, theirs in pairs]]
    size = min(len(one), len(other))
    if not size or np.isnan(one).any() or np.isnan(other).any():
        return Estimate(n=size)
    if METRICS[left.metric].average == "median":
        return _of_medians(one, other, paired, left.metric)
    middle = float(one.mean() - other.mean())
    if METRICS[left.metric].average == "share":
        return Estimate(middle, *intervals.of_share_difference(one, other, paired, (left.batch, right.batch)), size)
    return Estimate(middle, *intervals.of_difference(one, other, paired), size)


def _of_medians(one: np.ndarray, other: np.ndarray, paired: bool, metric: str) -> Estimate:
    """Neither reached 20 dB: no difference."""
    if not paired:
        return Estimate(median(one, metric) - median(other, metric), n=min(len(one), len(other)))
    with np.errstate(invalid="ignore"):
        apart = np.where(np.isinf(one) & (one == other), 0.0, one - other)
    return Estimate(median(apart, metric), *intervals.of_median(apart), len(apart))


def against(left: Sample, value: float) -> Estimate:
    """left - value"""
    ours = estimate(left.values, left.metric, left.batch)
    return Estimate(ours.ours - value, ours.low - value, ours.high - value, ours.n)
