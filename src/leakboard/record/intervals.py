"""95 % intervals over trials that cover what they promise, from a handful of trials on. No torch.

One trial alone has no spread and no interval: (NaN, NaN). What is drawn independently is the trial; the images of one
batch are not, so a share of images has as many of them as their spread between batches leaves.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy.special import bdtr, betaincinv, ndtr, ndtri, stdtrit

RESAMPLES = 2000
FROM_HERE_ON_BCA = 30  # trials; below, Student's t
TAIL = 0.025
NONE = (math.nan, math.nan)

Interval = tuple[float, float]


def of_mean(values: np.ndarray) -> Interval:
    """The mean of (n,): Student's t below 30 trials, from 30 on the BCa bootstrap (Efron 1987), its levels widened
    because a resample is narrower than a sample (Hesterberg 2015).
    """
    size = len(values)
    if size < 2 or not np.isfinite(values).all():
        return NONE
    if size >= FROM_HERE_ON_BCA and values.min() < values.max():  # equal values have a spread of rounding
        return _bca(np.ascontiguousarray(values, dtype=float).tobytes())
    half = -float(stdtrit(size - 1, TAIL)) * values.std(ddof=1) / math.sqrt(size)
    return float(values.mean() - half), float(values.mean() + half)


@functools.lru_cache(maxsize=16)
def _draws(size: int) -> np.ndarray:
    """Which trials each resample holds, (RESAMPLES, n); the same for every metric, so intervals are reproducible."""
    return np.random.default_rng(20).integers(0, size, (RESAMPLES, size))


@functools.lru_cache(maxsize=8192)
def _bca(content: bytes) -> Interval:
    """The same trials stand behind aggregates, boards and verdicts."""
    values = np.frombuffer(content)
    away = values - values.mean()
    means = away[_draws(len(values))].mean(1)
    below = (np.count_nonzero(means < 0) + np.count_nonzero(means == 0) / 2) / RESAMPLES
    bias = ndtri(below)
    skew = np.sum(away**3) / (6 * np.sum(away**2) ** 1.5)  # the jackknife's acceleration, of a mean in closed form
    wide = stdtrit(len(values) - 1, TAIL) * math.sqrt(len(values) / (len(values) - 1))
    low, high = bias + wide, bias - wide
    shares = [ndtr(bias + z / (1 - skew * z)) for z in (low, high)]
    low, high = values.mean() + np.quantile(means, shares)
    return float(low), float(high)


def of_share(values: np.ndarray, batch: int = 1) -> Interval:
    """The mean of shares (n,) in [0, 1], each of `batch` images.

    Of single images: Clopper and Pearson 1934. Of batches: the same at the number of independent images that the spread
    between batches leaves (Korn and Graubard 1998), which is one a batch where there is no spread to go by.
    """
    size = len(values)
    if not size or not np.isfinite(values).all():
        return NONE
    share = min(max(float(values.mean()), 0.0), 1.0)
    if np.isin(values, (0, 1)).all():
        count = float(size)
    elif size < 2:
        return NONE
    else:
        loss = (stdtrit(max(size * batch - 1, 1), TAIL) / stdtrit(size - 1, TAIL)) ** 2
        spread = values.var(ddof=1) / size
        whole = float(size * batch)
        count = loss * (min(whole, share * (1 - share) / spread) if spread > 0 else whole)
    return _clopper_pearson(share * count, count)


def _clopper_pearson(successes: float, count: float) -> Interval:
    failures = count - successes
    low = 0.0 if successes <= 0 else float(betaincinv(successes, failures + 1, TAIL))
    high = 1.0 if failures <= 1e-9 * count else float(betaincinv(successes + 1, failures, 1 - TAIL))
    return low, high


def of_median(values: np.ndarray) -> Interval:
    """The median of (n,), which may be infinite: two of the values themselves, by the binomial law of how many lie
    below it. Below six trials not even their extremes cover.
    """
    size, ordered = len(values), np.sort(values)
    rank = 0
    while rank < size // 2 and bdtr(rank, size, 0.5) <= TAIL:
        rank += 1
    return NONE if rank == 0 else (float(ordered[rank - 1]), float(ordered[size - rank]))


def of_difference(left: np.ndarray, right: np.ndarray, paired: bool) -> Interval:
    """The difference of two means: of (n,) and (n,) on the same victims, or of two samples (Welch's t)."""
    if paired:
        return of_mean(left - right)
    if min(len(left), len(right)) < 2 or not (np.isfinite(left).all() and np.isfinite(right).all()):
        return NONE
    middle = float(left.mean() - right.mean())
    parts = [side.var(ddof=1) / len(side) for side in (left, right)]
    if not sum(parts):
        return middle, middle
    freedom = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, (left, right), strict=True))
    half = -float(stdtrit(freedom, TAIL)) * math.sqrt(sum(parts))
    return middle - half, middle + half


def of_share_difference(left: np.ndarray, right: np.ndarray, paired: bool, batches: tuple[int, int]) -> Interval:
    """The difference of two shares, from the interval of each and their correlation (Newcombe 1998, Zou and Donner
    2008), which no sample of equal trials makes a point.
    """
    sides = of_share(left, batches[0]), of_share(right, batches[1])
    if any(math.isnan(end) for side in sides for end in side):
        return NONE
    one, other = float(left.mean()), float(right.mean())
    varied = paired and left.std() > 0 and right.std() > 0
    together = float(np.corrcoef(left, right)[0, 1]) if varied else 0.0

    def reach(first: float, second: float) -> float:
        return math.sqrt(max(first**2 + second**2 - 2 * together * first * second, 0.0))

    low = one - other - reach(one - sides[0][0], sides[1][1] - other)
    high = one - other + reach(sides[0][1] - one, other - sides[1][0])
    return low, high
