"""From trial lines to `metrics.json` and `timing.json`: means with 95 % intervals, failures counted, never dropped."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leakboard.metrics import MEASURED, METRICS, REACHED
from leakboard.record import intervals
from leakboard.record.intervals import Interval
from leakboard.record.results import Results
from leakboard.record.trial_lines import FAILURES, write_text


def interval(values: np.ndarray, metric: str, batch: int = 1) -> Interval:
    """95 % interval of what a metric is averaged to over trials, (n,) -> (low, high); NaN where n allows none.

    batch: how many images each value is a share of.
    """
    how = METRICS[metric].average
    if how == "median":
        return intervals.of_median(values)
    return intervals.of_share(values, batch) if how == "share" else intervals.of_mean(values)


def median(values: np.ndarray, metric: str) -> float:
    """Between the middle two of (n,); of a metric that may be infinite (never reached) the lower one of them."""
    return float(np.quantile(values, 0.5, method="inverted_cdf" if metric in REACHED else "linear"))


def rounded(value: float) -> float | None:
    """Six significant digits; None for what JSON has no number for (NaN, inf)."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def one_per_trial(lines: pd.DataFrame) -> pd.DataFrame:
    """The lines that count for quality: none that was skipped, and one per (variant, device kind, trial).

    A trial that was run in several executions counts once: in the execution that has most trials of its variant and
    device kind, the first in the alphabet on a tie.
    """
    counted, place = lines[lines["status"] != "skipped"], ["variant", "device_kind", "trial"]
    if counted.duplicated(place).any():
        size = counted.groupby(["variant", "device_kind", "execution"])["trial"].transform("size")
        ordered = counted.assign(size=-size).sort_values(["variant", "device_kind", "size", "execution", "trial"])
        counted = ordered.drop_duplicates(place).drop(columns="size")
    return counted.sort_values(place, ignore_index=True)


def metric_values(lines: pd.DataFrame, metric: str) -> np.ndarray:
    """(n,) values of one metric over trial lines, NaN where absent. A failed trial has not reached 20 dB: inf."""
    values = lines[metric].to_numpy(dtype=float, copy=True)
    if metric in REACHED and not np.isnan(values).all():
        values[np.isnan(values) & lines["status"].isin(FAILURES).to_numpy()] = math.inf
    return values


def aggregate(lines: pd.DataFrame, batch: int = 1) -> dict[str, Any]:
    """Current trial lines of one paper and benchmark -> the content of `metrics.json`.

    {variant: {device kind: {n, failures, failed_reasons, <metric>: {mean, sd, low, high}, ...}}}: every trial counts,
    failed ones with the scores of their noise row that their lines carry. A metric that no trial has is absent; one
    that some lack is {"mean": None, "reason": ...}. sd: of a sample. Skipped lines appear as {reason: count}.
    batch: the images of one trial.
    """
    counted = one_per_trial(lines)
    summary: dict[str, Any] = {}
    for (variant, kind), group in lines.groupby(["variant", "device_kind"]):
        chosen = counted[(counted["variant"] == variant) & (counted["device_kind"] == kind)]
        summary.setdefault(variant, {})[kind] = {**_counts(chosen, group), **_metrics(chosen, batch)}
    return summary


def _counts(counted: pd.DataFrame, every: pd.DataFrame) -> dict[str, Any]:
    failed = counted[counted["status"].isin(FAILURES)]
    skipped = every[every["status"] == "skipped"]
    counts: dict[str, Any] = {"n": len(counted), "failures": len(failed), "failed_reasons": _reasons(failed)}
    return {**counts, "skipped": _reasons(skipped)} if len(skipped) else counts


def _reasons(lines: pd.DataFrame) -> dict[str, int]:
    """{reason, or the status where none was given: how many trials}."""
    return dict(Counter(lines["reason"].where(lines["reason"] != "", lines["status"]).tolist()))


def _metrics(lines: pd.DataFrame, batch: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for metric in MEASURED:
        values = metric_values(lines, metric)
        lacking = int(np.isnan(values).sum())
        if lacking == len(values):
            continue
        if lacking:
            name = "median" if metric in REACHED else "mean"
            found[metric] = {name: None, "reason": f"{lacking} of {len(values)} trials lack it"}
        else:
            found[metric] = _reached(values, metric) if metric in REACHED else _mean(values, metric, batch)
    return found


def _mean(values: np.ndarray, metric: str, batch: int) -> dict[str, float | None]:
    low, high = interval(values, metric, batch)
    spread = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return {"mean": rounded(values.mean()), "sd": rounded(spread), "low": rounded(low), "high": rounded(high)}


def _reached(values: np.ndarray, metric: str) -> dict[str, float | None]:
    """median: None when fewer than half of the trials reached 20 dB. censored: how many never did."""
    finite = np.isfinite(values)
    middle, share = rounded(median(values, metric)), rounded(finite.mean())
    return {"median": middle, "share_reached": share, "censored": int((~finite).sum())}


def timing(lines: pd.DataFrame) -> dict[str, Any]:
    """Current trial lines -> the content of `timing.json`: {variant: {device kind: {execution: {...}}}}.

    Seconds of the attack alone, over all trials that ran: a failure or a timeout took its time too.
    """
    ran = lines[lines["status"] != "skipped"]
    summary: dict[str, Any] = {}
    for (variant, kind, execution), group in ran.groupby(["variant", "device_kind", "execution"]):
        summary.setdefault(variant, {}).setdefault(kind, {})[execution] = _cost(group)
    return summary


def _cost(lines: pd.DataFrame) -> dict[str, Any]:
    seconds, evaluations = lines["seconds"], lines["evaluations"]
    low, high = (seconds.quantile(share) for share in (0.25, 0.75))
    each = (seconds / evaluations)[evaluations > 0]
    return {
        "n": len(lines),
        "failures": int(lines["status"].isin(FAILURES).sum()),
        "median_seconds": rounded(seconds.median()),
        "iqr_seconds": rounded(high - low),
        "median_evaluations": rounded(evaluations.median()),
        "median_seconds_per_evaluation": rounded(each.median()),
        "peak_bytes": _largest(lines["peak_bytes"]),
        "prepare_seconds": rounded(lines["prepare_seconds"].max()),
        "devices": sorted(set(lines["device"]) - {""}),
        "threads": sorted({int(count) for count in lines["threads"].dropna()}),
    }


def _largest(column: pd.Series) -> int | None:
    return None if column.isna().all() else int(column.max())


def write_json(path: Path, value: Any) -> None:
    """Atomic, keys sorted, one space of indent, a line feed at the end; ValueError for NaN and inf."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def summarise(results: Results, paper: str, run: str) -> None:
    """Write `metrics.json` and `timing.json` beside `trials.csv`, from its current lines."""
    folder, lines = results.folder(paper, run), results.current_lines(paper, run)
    write_json(folder / "metrics.json", aggregate(lines, results.benchmark(run).batch))
    write_json(folder / "timing.json", timing(lines))
