"""Averages over every trial with their intervals, JSON that is stable."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from leakboard.board import estimates
from leakboard.record import aggregate, intervals, trial_lines


def line(trial: int, mse: float, **more: object) -> dict[str, object]:
    return {
        "variant": "plain", "benchmark_version": 1, "attack_version": 1, "engine": 1, "seed": 0, "trial": trial,
        "status": "ok", "device_kind": "cpu", "execution": "loop", "mse": mse, "seconds": 1.0 + trial,
        "evaluations": 10.0, **more,
    }  # fmt: skip


def test_the_interval_is_that_of_the_metric() -> None:
    values = np.array([0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert aggregate.interval(values, "mse") == intervals.of_mean(values)
    assert aggregate.interval(values, "exact") == intervals.of_share(values)
    assert aggregate.interval(values / 2, "exact", 4) == intervals.of_share(values / 2, 4)
    assert aggregate.interval(values, "seconds_to_20") == intervals.of_median(values)


def test_a_share_over_batches_is_told_their_size() -> None:
    lines = trial_lines.frame([line(trial, 0.1, exact=trial / 4) for trial in range(3)])
    got = aggregate.aggregate(lines, batch=4)["plain"]["cpu"]["exact"]
    assert (got["low"], got["high"]) == pytest.approx(intervals.of_share(np.arange(3) / 4, 4), rel=1e-5)


def test_failed_trials_count_and_skipped_ones_are_listed() -> None:
    lines = trial_lines.frame(
        [
            line(0, 0.0),
            line(1, 0.2, status="failed", reason="ValueError: x"),
            line(2, 0.4, status="timeout"),
            line(3, math.nan, status="skipped", reason="needs labels"),
        ]
    )
    got = aggregate.aggregate(lines)["plain"]["cpu"]
    assert (got["n"], got["failures"]) == (3, 2)
    assert got["failed_reasons"] == {"ValueError: x": 1, "timeout": 1} and got["skipped"] == {"needs labels": 1}
    assert got["mse"]["mean"] == pytest.approx(0.2) and got["mse"]["sd"] == pytest.approx(0.2)
    assert got["mse"]["low"] <= 0.2 <= got["mse"]["high"]


def test_a_wholly_skipped_variant_is_shown() -> None:
    got = aggregate.aggregate(trial_lines.frame([line(0, math.nan, status="skipped", reason="r")]))
    assert got == {"plain": {"cpu": {"n": 0, "failures": 0, "failed_reasons": {}, "skipped": {"r": 1}}}}


def test_a_metric_that_some_trials_lack_is_not_averaged() -> None:
    got = aggregate.aggregate(trial_lines.frame([line(0, 0.1, lpips=0.5), line(1, 0.1)]))["plain"]["cpu"]
    assert got["lpips"] == {"mean": None, "reason": "1 of 2 trials lack it"}
    assert "label_accuracy" not in got


def test_a_median_is_the_same_in_records_and_on_boards() -> None:
    """Of what may be infinite the lower one of the middle two, whether or not all trials reached 20 dB."""
    values = {"evaluations_to_20": [1.0, 2.0, 4.0, 8.0], "seconds_to_20": [0.25, 0.5, 1.0, math.inf]}
    lines = [line(trial, 0.1, **{name: of[trial] for name, of in values.items()}) for trial in range(4)]
    got = aggregate.aggregate(trial_lines.frame(lines))["plain"]["cpu"]
    for name, middle in {"evaluations_to_20": 2.0, "seconds_to_20": 0.5}.items():
        assert got[name]["median"] == estimates.estimate(np.array(values[name]), name).ours == middle
    assert estimates.estimate(np.array([1.0, 2.0, 4.0, 8.0]), "seconds").ours == 3.0


def test_time_to_quality_is_censored_not_averaged() -> None:
    reached = [1.0, 2.0, math.inf]
    lines = [line(i, 0.1, seconds_to_20=value) for i, value in enumerate(reached)]
    got = aggregate.aggregate(trial_lines.frame([*lines, line(3, 0.9, status="failed")]))["plain"]["cpu"]
    assert got["seconds_to_20"] == {"median": 2.0, "share_reached": 0.5, "censored": 2}
    never = aggregate.aggregate(trial_lines.frame([line(0, 0.1, seconds_to_20=math.inf)]))["plain"]["cpu"]
    assert never["seconds_to_20"]["median"] is None and "evaluations_to_20" not in never


def test_device_kinds_stand_apart_and_a_trial_counts_once() -> None:
    stacked = [line(i, 0.5, execution="stacked") for i in range(2)]
    lines = trial_lines.frame([*(line(i, 0.1) for i in range(3)), *stacked, line(0, 0.3, device_kind="cuda")])
    got = aggregate.aggregate(lines)["plain"]
    assert got["cpu"]["n"] == 3 and got["cpu"]["mse"]["mean"] == pytest.approx(0.1)
    assert got["cuda"]["n"] == 1 and got["cuda"]["mse"] == {"mean": 0.3, "sd": None, "low": None, "high": None}
    cost = aggregate.timing(lines)["plain"]["cpu"]
    assert set(cost) == {"loop", "stacked"}


def test_timing() -> None:
    lines = trial_lines.frame(
        [
            line(0, 0.1, peak_bytes=7e10, device="one", threads=1),
            line(1, 0.1, status="timeout", device="two", threads=1),
            line(2, 0.1, evaluations=0.0, prepare_seconds=4.0, threads=2),
        ]
    )
    got = aggregate.timing(lines)["plain"]["cpu"]["loop"]
    assert got == {
        "n": 3, "failures": 1, "median_seconds": 2.0, "iqr_seconds": 1.0, "median_evaluations": 10.0,
        "median_seconds_per_evaluation": 0.15, "peak_bytes": 70000000000, "prepare_seconds": 4.0,
        "devices": ["one", "two"], "threads": [1, 2],
    }  # fmt: skip


def test_json_is_stable_and_strict(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    aggregate.write_json(path, {"b": 1, "a": aggregate.rounded(1 / 3)})
    assert path.read_text() == '{\n "a": 0.333333,\n "b": 1\n}\n'
    with pytest.raises(ValueError):
        aggregate.write_json(path, {"a": math.inf})
    assert json.loads(path.read_text())["b"] == 1 and list(tmp_path.iterdir()) == [path]
    assert aggregate.aggregate(trial_lines.frame()) == {} and aggregate.timing(trial_lines.frame()) == {}
