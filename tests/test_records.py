"""The store: what is written is read, lines merge in any order, staleness follows the key."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import leakboard
from leakboard import config
from leakboard.record import trial_lines

KEY = ("a" * 12, "123456789012", "00e123456789", 1)


def line(trial: int = 0, variant: str = "plain", key: trial_lines.Key = KEY, **more: object) -> dict[str, object]:
    base = dict(zip(trial_lines.KEY, key, strict=True))
    return {
        "attack": "toy", "variant": variant, "benchmark": "b", "scale": "quick", "benchmark_version": 1,
        "attack_version": 1, "trial": trial, "seed": trial + 2**62, "status": "ok", "device_kind": "cpu",
        "execution": "loop", "seconds": 0.1, "mse": 1 / 3, "peak_bytes": 123456789012.0, **base, **more,
    }  # fmt: skip


def test_round_trip_keeps_every_value(tmp_path: Path) -> None:
    first = line(reason='quoted "text", with comma', evaluations_to_20=math.inf, mse_each=[0.25, 1e-7], dirty=True)
    path = tmp_path / "deep" / "trials.csv"
    trial_lines.write(path, trial_lines.frame([first, line(1, commit="12e4567")]))
    got = trial_lines.read(path)
    assert tuple(got.columns) == trial_lines.COLUMNS
    assert got.loc[0, "seed"] == 2**62 and got.loc[0, "peak_bytes"] == 123456789012
    assert got.loc[0, "evaluations_to_20"] == math.inf and math.isnan(got.loc[0, "psnr"])
    assert got.loc[0, "reason"] == 'quoted "text", with comma' and got.loc[1, "commit"] == "12e4567"
    assert got["dirty"].tolist() == [True, False] and got.loc[0, "settings_hash"] == "123456789012"
    np.testing.assert_array_equal(trial_lines.numbers(got.loc[0, "mse_each"]), [0.25, 1e-7])
    before = path.read_bytes()
    trial_lines.write(path, got)
    assert path.read_bytes() == before and b"\r" not in before
    assert [p.name for p in path.parent.iterdir()] == ["trials.csv"]


def test_missing_file_is_an_empty_frame_with_types(tmp_path: Path) -> None:
    got = trial_lines.read(tmp_path / "none.csv")
    filled = trial_lines.frame([line()])
    assert got.empty and tuple(got.columns) == trial_lines.COLUMNS
    assert got.dtypes.equals(filled.dtypes)


def test_a_line_feed_in_a_reason_stays_one_line(tmp_path: Path) -> None:
    trial_lines.write(tmp_path / "t.csv", trial_lines.frame([line(reason="first\nsecond")]))
    assert trial_lines.read(tmp_path / "t.csv").loc[0, "reason"] == "first second"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda t: t[:-9], "cut off"),
        (lambda t: t.rsplit(",", 4)[0] + "\n", r":3: found \d+ cells, expected 33"),
        (lambda t: t.replace(",psnr_each", ",colour", 1), "colour"),
        (lambda t: t.replace(",status,", ",", 1).replace(",ok,", ","), "no column status"),
        (lambda t: t.replace(",ok,", ",fine,", 1), r":2: found status 'fine', expected one of ok"),
        (lambda t: t.replace("0.333333333", "0.33x", 1), r":2: found mse '0.33x', expected a number"),
        (lambda t: "", "cut off"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, damage, says: str) -> None:
    path = tmp_path / "trials.csv"
    trial_lines.write(path, trial_lines.frame([line(0), line(1)]))
    path.write_text(damage(path.read_text()))
    with pytest.raises(trial_lines.RecordError, match=says) as caught:
        trial_lines.read(path)
    assert str(path) in str(caught.value)


def test_columns_that_came_later_may_lack(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    trial_lines.write(path, trial_lines.frame([line()]))
    pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns=["restarts", "loss"]).to_csv(path, index=False)
    assert math.isnan(trial_lines.read(path).loc[0, "loss"])


def test_unknown_column_in_a_line() -> None:
    with pytest.raises(trial_lines.RecordError, match="colour"):
        trial_lines.frame([line(colour=1)])


def test_disjoint_trials_merge_in_either_order(tmp_path: Path) -> None:
    one = trial_lines.frame([line(t) for t in (3, 1, 0)])
    other = trial_lines.frame([line(t, variant=v) for t in (2, 4) for v in ("plain", "cosine")])
    pd.testing.assert_frame_equal(trial_lines.merge(one, other), trial_lines.merge(other, one))
    trial_lines.write(tmp_path / "a", trial_lines.merge(one, other))
    trial_lines.write(tmp_path / "b", trial_lines.merge(other, one))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    pd.testing.assert_frame_equal(
        trial_lines.merge(trial_lines.frame(), one), trial_lines.merge(one, trial_lines.frame())
    )


def test_merge_is_idempotent_and_new_lines_win() -> None:
    old = trial_lines.frame([line(0, mse=0.5), line(1)])
    new = trial_lines.frame([line(0, mse=0.25)])
    got = trial_lines.merge(old, new)
    assert got["mse"].tolist() == [0.25, pytest.approx(1 / 3)]
    pd.testing.assert_frame_equal(trial_lines.merge(got, new), got)


def test_new_key_replaces_its_place_and_leaves_the_rest_stale() -> None:
    newer = (*KEY[:3], 2)
    old = trial_lines.frame([line(0), line(1), line(0, device_kind="cuda"), line(0, execution="stacked")])
    got = trial_lines.merge(old, trial_lines.frame([line(0, key=newer)]))
    assert len(got) == 3, "the older line of another execution has gone too, other devices and trials stay"
    assert trial_lines.current(got, {"plain": newer}).sum() == 1
    assert trial_lines.current(got, {"plain": KEY}).sum() == 2
    again = trial_lines.merge(got, trial_lines.frame([line(0, key=newer, execution="compiled")]))
    assert trial_lines.current(again, {"plain": newer}).sum() == 2, "two executions stand side by side under one key"
    assert not trial_lines.current(got, {}).any()
    assert trial_lines.current(trial_lines.frame(), {"plain": KEY}).dtype == bool


def test_missing_trials_count_failures_as_present() -> None:
    lines = trial_lines.frame(
        [line(0), line(1, status="failed"), line(2, status="timeout"), line(3, key=(*KEY[:3], 0)), line(4, "other")]
    )
    assert trial_lines.missing(lines, "plain", KEY, range(5), "cpu", "loop") == [3, 4]
    assert trial_lines.missing(lines, "plain", KEY, range(2), "cuda", "loop") == [0, 1]
    assert trial_lines.missing(lines, "plain", KEY, range(4), "cpu", "stacked x4") == [3], "the loop answers for all"
    stacked = trial_lines.frame([line(0, execution="stacked x4")])
    assert trial_lines.missing(stacked, "plain", KEY, [0], "cpu", "loop") == [0]
    assert trial_lines.missing(trial_lines.frame(), "plain", KEY, [1], "cpu", "loop") == [1]


def test_present_keys_follow_source_settings_benchmark_and_engine(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "benchmarks").mkdir()
    folder = tmp_path / "baselines" / "toy"
    folder.mkdir(parents=True)
    (folder / "attack.py").write_text("x = 1\n")
    (folder / "params.yaml").write_text(
        "{version: 1, title: t, on: {b: {plain: {}}, c: {}}, variants: {plain: {lr: 1}, other: {}}}"
    )
    monkeypatch.chdir(tmp_path)
    bench = config.Benchmark.model_validate(
        {"name": "b", "scale": "quick", "version": 1, "question": "?", "seed": 0, "data": {"name": "d"},
         "network": {"name": "mlp"}, "trials": 2, "budget": 1}
    )  # fmt: skip
    keys = trial_lines.present_keys("toy", bench)
    source = trial_lines.attack_sha(folder / "attack.py")
    assert keys == {"plain": (source, config.digest({"lr": 1}), bench.hash, leakboard.ENGINE)}
    (folder / "attack.py").write_text("x = 2\n")
    assert trial_lines.present_keys("toy", bench)["plain"][0] != source
