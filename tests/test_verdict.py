"""Verdicts by hand: every relation, tolerances that are two-sided, explained, not run, and the table they make."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from leakboard import config
from leakboard.board import verdict
from leakboard.board.verdict import Estimate
from leakboard.record import trial_lines
from leakboard.record.results import Results


def number(**more: object) -> config.PublishedNumber:
    base = {"run": "b", "variant": "plain", "metric": "psnr", "value": 20.0, "tolerance": 1.0}
    return config.PublishedNumber.model_validate({**base, "where": "table 1", "provenance": "verified", **more})


def claim(relation: str, margin: float = 0.0, **more: object) -> config.Claim:
    base = {"says": "better", "metric": "psnr", "left": {"run": "b", "variant": "plain"}, "relation": relation}
    right = {} if "value" in more else {"right": {"run": "b", "variant": "other"}}
    return config.Claim.model_validate(
        {**base, **right, "margin": margin, "where": "s. 3", "provenance": "verified", **more}
    )


@pytest.mark.parametrize(
    ("ours", "low", "high", "holds"),
    [
        (20.9, 20.8, 21.0, True),
        (19.1, 19.0, 19.2, True),
        (21.1, 21.0, 21.2, False),  # too good misses too
        (18.9, 18.8, 19.0, False),
        (22.4, 20.0, 23.0, False),  # half-width 1.5 is wider than the file's 1.0, still not enough
        (21.4, 20.0, 23.0, True),
    ],
)
def test_a_mean_has_a_two_sided_tolerance(ours: float, low: float, high: float, holds: bool) -> None:
    assert verdict.number_holds(number(), Estimate(ours, low, high, 50)) is holds


@pytest.mark.parametrize(
    ("value", "n", "tolerance", "expected"),
    [
        (0.5, 1000, 0.0, 0.05),  # five points
        (0.5, 100, 0.0, 0.098),  # 1.96 sqrt(0.25 / 100)
        (0.9, 36, 0.0, 0.098),  # 1.96 * 0.3 / 6
        (1.0, 10, 0.0, 0.05),
        (0.5, 100, 0.2, 0.2),  # the file's
    ],
)
def test_a_rate_has_five_points_or_the_binomial_half_width(
    value: float, n: int, tolerance: float, expected: float
) -> None:
    rate = number(metric="label_accuracy", value=value, tolerance=tolerance)
    got = verdict.number_tolerance(rate, Estimate(0.0, 0.0, 1.0, n))
    assert got == pytest.approx(expected, abs=1e-6)
    assert verdict.number_holds(rate, Estimate(value - expected + 1e-9, 0, 1, n))
    assert not verdict.number_holds(rate, Estimate(value - expected - 1e-6, 0, 1, n))


@pytest.mark.parametrize(
    ("relation", "margin", "low", "high", "holds"),
    [
        (">", 3, 3.1, 9, True), (">", 3, 2.9, 9, False), (">", 3, 3.0, 9, False), (">", 0, 0.1, 1, True),
        (">=", 3, -2.9, 1, True), (">=", 3, -3.0, 1, True), (">=", 3, -3.1, 1, False), (">=", 0, 0.0, 1, True),
        ("<", 3, -9, -3.1, True), ("<", 3, -9, -2.9, False), ("<", 3, -9, -3.0, False), ("<", 0, -1, -0.1, True),
        ("<=", 3, 0, 2.9, True), ("<=", 3, 0, 3.0, True), ("<=", 3, 0, 3.1, False), ("<=", 0, -1, 0.0, True),
    ],
)  # fmt: skip
def test_a_claim_is_judged_on_the_whole_interval(
    relation: str, margin: float, low: float, high: float, holds: bool
) -> None:
    assert verdict.claim_holds(claim(relation, margin), Estimate((low + high) / 2, low, high, 30)) is holds


def test_the_word_for_it() -> None:
    assert verdict.verdict(True, True, "") == verdict.verdict(True, True, "why") == "reproduced"
    assert verdict.verdict(True, False, "") == verdict.verdict(True, False, "  ") == "missed"
    assert verdict.verdict(True, False, "why") == "explained"
    assert verdict.verdict(False, False, "why") == verdict.verdict(False, True, "") == "not run"


def test_most_trials_win_and_cuda_on_a_tie() -> None:
    cpu, cuda = np.zeros(3), np.ones(3)
    assert verdict.most_trials({"cpu": cpu, "cuda": cuda}) is cuda
    assert verdict.most_trials({"cuda": cuda[:2], "cpu": cpu}) is cpu
    assert len(verdict.most_trials({})) == 0


def test_a_difference_is_paired_over_common_trials() -> None:
    left, right = pd.Series([5.0, 7.0, 9.0], index=[0, 1, 2]), pd.Series([1.0, 2.0], index=[1, 2])
    np.testing.assert_array_equal(verdict.difference(left, right), [6.0, 7.0])
    never = pd.Series([math.inf, math.inf]), pd.Series([math.inf, 3.0])
    np.testing.assert_array_equal(verdict.difference(*never), [0.0, math.inf])


def test_an_absent_value_makes_the_estimate_absent() -> None:
    got = verdict.estimate(np.array([1.0, math.nan]), "lpips")
    assert not got.exists and got.n == 2


BENCHMARK = {
    "about": {"question": "?"},
    "common": {"version": 1, "seed": 0, "data": {"name": "d"}, "network": {"name": "mlp"}, "budget": 1},
    "quick": {"trials": 4},
    "paper": {"trials": 4},
}  # fmt: skip
PARAMS = {"version": 1, "title": "t", "on": {"b": {}}, "variants": {"plain": {"lr": 1}, "other": {}, "unrun": {}}}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One paper `toy` with psnr 20..23 for `plain`, two dB below for `other`, on benchmark b at quick scale."""
    for folder in ("benchmarks", "baselines/toy"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "benchmarks" / "b.yaml").write_text(yaml.safe_dump(BENCHMARK))
    (tmp_path / "baselines" / "toy" / "attack.py").write_text("")
    (tmp_path / "baselines" / "toy" / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    monkeypatch.chdir(tmp_path)
    keys = trial_lines.present_keys("toy", config.benchmark("b", "quick"))
    lines = [
        {
            "variant": variant, "trial": trial, "status": "ok", "device_kind": "cpu", "execution": "loop",
            "psnr": psnr + trial, "above20": float(psnr + trial > 20), "benchmark_version": 1, "attack_version": 1,
            "seed": 0, **dict(zip(trial_lines.KEY, keys[variant], strict=True)),
        }
        for variant, psnr in (("plain", 20.0), ("other", 18.0))
        for trial in range(4)
    ]  # fmt: skip
    stale = {**lines[0], "trial": 9, "psnr": 99.0, "engine": -1}
    trial_lines.write(Results.at("quick").folder("toy", "b") / "trials.csv", trial_lines.frame([*lines, stale]))
    return tmp_path


def say(*entries: config.PublishedNumber | config.Claim) -> None:
    content = {"paper": "toy", "citation": "c", "numbers": [], "claims": []}
    for entry in entries:
        kind = "numbers" if isinstance(entry, config.PublishedNumber) else "claims"
        content[kind].append(entry.model_dump(mode="json"))
    (config.root() / "baselines" / "toy" / "published.yaml").write_text(yaml.safe_dump(content))


def test_the_table(checkout: Path) -> None:
    say(
        number(value=21.5, scale="quick"),
        number(value=30.0, scale="quick", gap="other data"),
        number(value=30.0, scale="quick", gates=True),
        number(variant="unrun", scale="quick"),
        number(scale="paper"),
        claim(">", 1.5, scale=["quick", "paper"]),
        claim("<", value=21.0, scale=["quick"]),
        claim(">", scale=["paper"]),
    )
    table = verdict.verdicts(Results.at("quick"))
    assert tuple(table.columns) == verdict.COLUMNS
    assert table["verdict"].tolist() == [
        "reproduced", "explained", "missed", "not run", "reproduced", "missed",
    ]  # fmt: skip
    first, relation, value = table.iloc[0], table.iloc[4], table.iloc[5]
    assert (first["ours"], first["n"], first["published"]) == (21.5, 4, "21.5")  # the stale 99 dB do not count
    assert (relation["run"], relation["published"], relation["tolerance"]) == ("b/plain vs b/other", "> 1.5", 1.5)
    assert relation["where"] == "better - s. 3" and (relation["ours"], relation["low"], relation["high"]) == (2, 2, 2)
    assert value["run"] == "b/plain vs 21" and value["ours"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"variant": "palin"}, r"numbers\.0: toy has no variant 'palin'; it has: other, plain, unrun"),
        ({"run": "elsewhere"}, r"numbers\.0: no benchmark 'elsewhere'; there are: b"),
    ],
)
def test_a_row_that_no_board_can_have_is_named_at_load(checkout: Path, wrong: dict, says: str) -> None:
    say(number(**wrong))
    with pytest.raises(config.ConfigError, match=rf"published\.yaml: {says}"):
        config.published("toy")


def test_a_metric_that_there_is_not_is_named_at_load(checkout: Path) -> None:
    say(number())
    path = checkout / "baselines/toy/published.yaml"
    path.write_text(path.read_text().replace("metric: psnr", "metric: psrn"))
    with pytest.raises(config.ConfigError, match=r"published\.yaml:(.|\n)*numbers\.0\.metric.*no metric 'psrn'"):
        config.published("toy")


def test_the_file_is_stable(checkout: Path) -> None:
    say(number(value=21.5, scale="quick"), number(variant="unrun", scale="quick", gap='a "gap", with comma'))
    verdict.write_verdicts(Results.at("quick"))
    path = Results.at("quick").file("published.csv")
    before = path.read_bytes()
    verdict.write_verdicts(Results.at("quick"))
    assert path.read_bytes() == before
    got = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert got["ours"].tolist() == ["21.5", ""] and got.loc[1, "gap"] == 'a "gap", with comma'
    assert verdict.verdicts(Results.at("paper")).empty


def test_no_published_numbers_at_all(checkout: Path) -> None:
    assert (
        verdict.verdicts(Results.at("quick")).empty
        and verdict.text_of(verdict.verdicts(Results.at("quick"))).count("\n") == 1
    )
