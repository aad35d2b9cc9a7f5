"""Every published number and claim against ours: reproduced, missed, explained (missed, with a stated gap) or not run.

Tolerances are two-sided: too good misses too. Of the device kinds only one is used, that with most trials, CUDA on a
tie; a claim takes both its sides from the same kind.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leakboard.config import Claim, PublishedNumber, Row, Scale, paper_names, published
from leakboard.metrics import RATES, REACHED
from leakboard.record.aggregate import interval, metric_values, one_per_trial
from leakboard.record.results import Results
from leakboard.record.trial_lines import write_text

COLUMNS = (
    "paper", "run", "metric", "where", "provenance", "gates", "published", "tolerance", "ours", "low", "high", "n",
    "verdict", "gap",
)  # fmt: skip
RATE_TOLERANCE = 0.05  # a rate is held to five points, or to what n trials can tell

Lines = Callable[[str, str], pd.DataFrame]


@dataclass(frozen=True)
class Estimate:
    """A mean over n trials (the median for time to 20 dB) and its 95 % interval; all NaN when there is none."""

    ours: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0

    @property
    def exists(self) -> bool:
        return self.n > 0 and not math.isnan(self.ours)


def estimate(values: np.ndarray, metric: str) -> Estimate:
    """(n,) values of one metric -> its estimate; a value that is absent makes the whole absent, n stays shown."""
    if not len(values) or np.isnan(values).any():
        return Estimate(n=len(values))
    median = metric in REACHED
    ours = float(np.quantile(values, 0.5, method="inverted_cdf")) if median else float(values.mean())
    return Estimate(ours, *interval(values, median), len(values))


def number_tolerance(number: PublishedNumber, ours: Estimate, batch: int = 1) -> float:
    """What |ours - published| may be.

    A rate: the largest of the file's tolerance, five points and the binomial 95 % half-width at our number of images,
    `batch` of them in every trial. Else the larger of the file's (the paper's own spread) and the half-width of our
    interval.
    """
    if not ours.exists:
        return number.tolerance
    if number.metric in RATES:
        share = min(max(number.value, 0.0), 1.0)
        return max(number.tolerance, RATE_TOLERANCE, 1.96 * math.sqrt(share * (1 - share) / (ours.n * batch)))
    half = (ours.high - ours.low) / 2
    return max(number.tolerance, half) if math.isfinite(half) else number.tolerance


def number_holds(number: PublishedNumber, ours: Estimate, batch: int = 1) -> bool:
    return abs(ours.ours - number.value) <= number_tolerance(number, ours, batch) + 1e-12


def claim_threshold(claim: Claim) -> float:
    """What the difference left - right is compared with; the margin widens `>=` and `<=` and sharpens `>` and `<`."""
    return claim.margin if claim.relation in (">", "<=") else -claim.margin


def claim_holds(claim: Claim, difference: Estimate) -> bool:
    """Whether the whole 95 % interval of the difference lies on the claimed side."""
    limit = claim_threshold(claim)
    return {
        ">": difference.low > limit,
        ">=": difference.low >= limit,
        "<": difference.high < limit,
        "<=": difference.high <= limit,
    }[claim.relation]


def verdict(exists: bool, holds: bool, gap: str) -> str:
    if not exists:
        return "not run"
    return "reproduced" if holds else "explained" if gap.strip() else "missed"


def by_kind(lines: pd.DataFrame, variant: str, metric: str) -> dict[str, pd.Series]:
    """{device kind: values of one metric by trial}"""
    chosen = one_per_trial(lines[lines["variant"] == variant])
    groups = chosen.groupby("device_kind")
    return {str(kind): pd.Series(metric_values(group, metric), index=group["trial"]) for kind, group in groups}


def most_trials(kinds: dict[str, np.ndarray]) -> np.ndarray:
    """The values of the device kind that has most of them, CUDA's on a tie; none: an empty array."""
    best = max(kinds, key=lambda kind: (len(kinds[kind]), kind == "cuda", kind), default=None)
    return np.empty(0) if best is None else kinds[best]


def difference(left: pd.Series, right: pd.Series) -> np.ndarray:
    """left - right over the trials that both have. Neither reached 20 dB: no difference."""
    common = left.index.intersection(right.index)
    one, other = left[common].to_numpy(), right[common].to_numpy()
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(one) & (one == other), 0.0, one - other)


def _judged_number(paper: str, number: PublishedNumber, lines: Lines) -> dict[str, object]:
    stored = lines(paper, number.run)
    kinds = by_kind(stored, number.variant, number.metric)
    ours = estimate(most_trials({kind: values.to_numpy() for kind, values in kinds.items()}), number.metric)
    batch = max(1, len(stored["mse_each"].iloc[0].split())) if ours.exists else 1
    holds = ours.exists and number_holds(number, ours, batch)
    return {
        "paper": paper,
        "run": f"{number.run}/{number.variant}",
        "where": " ".join(number.where.split()),
        "published": f"{number.value:.6g}",
        **_shared(number, ours, number_tolerance(number, ours, batch), holds),
    }


def _judged_claim(paper: str, claim: Claim, lines: Lines) -> dict[str, object]:
    left = by_kind(lines(claim.left.paper or paper, claim.left.run), claim.left.variant, claim.metric)
    if claim.right is None:
        value, other = float(claim.value or 0.0), f"{claim.value:.6g}"
        kinds = {kind: values.to_numpy() - value for kind, values in left.items()}
    else:
        right = by_kind(lines(claim.right.paper or paper, claim.right.run), claim.right.variant, claim.metric)
        other = _label(paper, claim.right)
        kinds = {kind: difference(left[kind], right[kind]) for kind in left.keys() & right.keys()}
    ours = estimate(most_trials(kinds), claim.metric)
    return {
        "paper": paper,
        "run": f"{_label(paper, claim.left)} vs {other}",
        "where": " ".join(f"{claim.says} - {claim.where}".split()),
        "published": f"{claim.relation} {claim_threshold(claim) + 0.0:.6g}",
        **_shared(claim, ours, claim.margin, ours.exists and claim_holds(claim, ours)),
    }


def _label(paper: str, row: Row) -> str:
    """run/variant, with the paper in front where it is another's."""
    place = f"{row.run}/{row.variant}"
    return place if row.paper in (None, paper) else f"{row.paper}:{place}"


def _shared(entry: PublishedNumber | Claim, ours: Estimate, tolerance: float, holds: bool) -> dict[str, object]:
    return {
        "metric": entry.metric,
        "provenance": entry.provenance,
        "gates": entry.gates,
        "tolerance": tolerance,
        "ours": ours.ours,
        "low": ours.low,
        "high": ours.high,
        "n": ours.n,
        "verdict": verdict(ours.exists, holds, entry.gap),
        "gap": " ".join(entry.gap.split()),
    }


def _entries(scale: Scale) -> Iterator[tuple[str, PublishedNumber | Claim]]:
    """(paper, number or claim) of this scale, in the order of the files."""
    for paper in paper_names():
        said = published(paper)
        if said is not None:
            yield from ((paper, number) for number in said.numbers if scale in number.scale)
            yield from ((paper, claim) for claim in said.claims if scale in claim.scale)


def verdicts(results: Results) -> pd.DataFrame:
    """The content of `published.csv`: one row per published number and claim, `COLUMNS`.

    A number: `published` its value, `tolerance` the one that was applied. A claim: `run` names both sides, `published`
    the relation that the difference left - right must satisfy, `tolerance` the margin, `where` starts with its
    sentence; ours, low and high are the difference paired by trial, over the trials that both sides have.
    """
    lines = functools.cache(results.current_lines)
    rows = [
        _judged_number(paper, entry, lines)
        if isinstance(entry, PublishedNumber)
        else _judged_claim(paper, entry, lines)
        for paper, entry in _entries(results.scale)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def text_of(table: pd.DataFrame) -> str:
    """The table as the CSV text that is committed: numbers to six significant digits, empty where there is none."""
    buffer = io.StringIO()
    shown = table.assign(gates=table["gates"].map({True: "true", False: "false"}))
    shown.to_csv(buffer, index=False, float_format="%.6g", lineterminator="\n")
    return buffer.getvalue()


def write_verdicts(results: Results) -> pd.DataFrame:
    """Write `published.csv` and return what it holds."""
    judged = verdicts(results)
    write_text(results.file("published.csv"), text_of(judged))
    return judged
