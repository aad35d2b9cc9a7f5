"""Verdicts by hand: every relation, bands that are two-sided, what gates, what counts, and the table they make."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import yaml

from leakboard import config
from leakboard.board import verdict
from leakboard.board.estimates import Estimate
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
    ("ours", "low", "high", "n", "word"),
    [
        (20.9, 20.8, 21.0, 50, "reproduced"),
        (19.1, 19.0, 19.2, 30, "reproduced"),
        (20.0, 19.9, 20.1, 29, "undecided"),  # too few trials
        (20.9, 20.2, 21.6, 50, "reproduced"),  # no wider than the band, in which ours lies
        (20.0, 18.9, 21.1, 50, "undecided"),  # wider than the band
        (21.1, 20.9, 21.3, 50, "undecided"),  # ours lies outside, its interval does not
        (21.2, 21.1, 21.3, 50, "missed"),  # too good misses too
        (18.8, 18.7, 18.9, 50, "missed"),
        (22.0, 21.1, 22.9, 3, "missed"),  # few trials suffice for that: the interval knows how few
        (20.0, math.nan, math.nan, 1, "undecided"),
        (math.nan, math.nan, math.nan, 4, "not run"),
    ],
)
def test_a_number_is_held_to_a_band(ours: float, low: float, high: float, n: int, word: str) -> None:
    assert verdict.number_verdict(number(), Estimate(ours, low, high, n)) == word


@pytest.mark.parametrize(
    ("metric", "tolerance", "expected"),
    [("psnr", 0.0, 1.0), ("psnr", 2.5, 2.5), ("exact", 0.0, 0.05), ("label_accuracy", 0.2, 0.2), ("ssim", 0.01, 0.05),
     ("lpips", 0.0, 0.05), ("mse", 0.001, 0.001), ("evaluations_to_20", 10.0, 10.0)],
)  # fmt: skip
def test_the_band_comes_from_the_papers_side_alone(metric: str, tolerance: float, expected: float) -> None:
    assert verdict.band(number(metric=metric, tolerance=tolerance)) == expected


@pytest.mark.parametrize(
    ("relation", "margin", "low", "high", "word"),
    [
        (">", 3, 3.1, 9, "reproduced"), (">", 3, 2.9, 9, "undecided"), (">", 3, 3.0, 9, "undecided"),
        (">", 0, 0.1, 1, "reproduced"), (">", 3, -1, 2.9, "missed"), (">", 3, -1, 3.0, "missed"),
        (">=", 3, -2.9, 1, "reproduced"), (">=", 3, -3.0, 1, "reproduced"), (">=", 3, -3.1, 1, "undecided"),
        (">=", 0, 0.0, 1, "reproduced"), (">=", 3, -9, -3.1, "missed"), (">=", 3, -9, -3.0, "undecided"),
        ("<", 3, -9, -3.1, "reproduced"), ("<", 3, -9, -2.9, "undecided"), ("<", 3, -9, -3.0, "undecided"),
        ("<", 0, -1, -0.1, "reproduced"), ("<", 3, -2.9, 1, "missed"), ("<", 0, 0.0, 1, "missed"),
        ("<=", 3, 0, 2.9, "reproduced"), ("<=", 3, 0, 3.0, "reproduced"), ("<=", 3, 0, 3.1, "undecided"),
        ("<=", 0, -1, 0.0, "reproduced"), ("<=", 3, 3.1, 9, "missed"),
    ],
)  # fmt: skip
def test_a_claim_is_judged_on_the_whole_interval(
    relation: str, margin: float, low: float, high: float, word: str
) -> None:
    apart = Estimate((low + high) / 2, low, high, 10)
    assert verdict.claim_verdict(claim(relation, margin), apart) == word
    if word == "reproduced":
        assert verdict.claim_verdict(claim(relation, margin), apart, above_controls=False) == "undecided"
        few = Estimate(apart.ours, low, high, 9)
        assert verdict.claim_verdict(claim(relation, margin), few) == "undecided"


def test_a_claim_without_an_interval_is_undecided_and_without_trials_not_run() -> None:
    assert verdict.claim_verdict(claim(">"), Estimate(5.0, math.nan, math.nan, 1)) == "undecided"
    assert verdict.claim_verdict(claim(">"), Estimate()) == "not run"


@pytest.mark.parametrize(
    ("relation", "metric", "better"),
    [(">", "psnr", "plain"), (">=", "psnr", "plain"), ("<", "psnr", "other"), (">", "mse", "other"),
     ("<=", "lpips", "plain")],
)  # fmt: skip
def test_the_winner_of_a_claim(relation: str, metric: str, better: str) -> None:
    best = verdict.winner(claim(relation, metric=metric))
    assert best is not None and best.variant == better


def test_a_row_that_is_said_to_fall_short_has_no_winner() -> None:
    assert verdict.winner(claim("<", value=0.1, metric="exact")) is None


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
        number(value=30.0, scale="quick", cause="other data"),
        number(value=30.0, scale="quick", gates=True),
        number(variant="unrun", scale="quick"),
        number(scale="paper"),
        claim(">", 1.5, scale=["quick", "paper"]),
        claim("<", value=21.0, scale=["quick"]),
        claim(">", scale=["paper"]),
    )
    table = verdict.verdicts(Results.at("quick"))
    assert tuple(table.columns) == verdict.COLUMNS
    assert table["verdict"].tolist() == ["undecided", "missed", "missed", "not run", "undecided", "undecided"]
    first, relation, value = table.iloc[0], table.iloc[4], table.iloc[5]
    assert (first["ours"], first["n"], first["published"]) == (21.5, 4, "21.5")  # the stale 99 dB do not count
    assert (relation["run"], relation["published"], relation["tolerance"]) == ("b/plain vs b/other", "> 1.5", 1.5)
    assert relation["where"] == "better - s. 3" and (relation["ours"], relation["low"], relation["high"]) == (2, 2, 2)
    assert value["run"] == "b/plain vs 21" and value["ours"] == pytest.approx(0.5)
    assert not table["gates"].any() and not verdict.red(table).any(), "four trials gate nothing"


@pytest.fixture
def enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "ENOUGH_FOR_NUMBERS", 4)
    monkeypatch.setattr(verdict, "ENOUGH_FOR_CLAIMS", 4)


def test_what_gates_is_red_unless_the_cause_of_its_miss_is_known(checkout: Path, enough: None) -> None:
    say(
        number(value=30.0, scale="quick", gates=True),
        number(value=30.0, scale="quick", gates=True, cause="other data"),
        number(value=30.0, scale="quick"),
        claim("<", scale="quick"),
        claim("<", scale="quick", provenance="figure"),
        claim("<", scale="quick", provenance="ours"),
        claim("<", scale="quick", gates=False),
    )
    table = verdict.verdicts(Results.at("quick"))
    assert (table["verdict"] == "missed").all()
    assert table["gates"].tolist() == [True, True, False, True, False, True, False]
    assert verdict.red(table).tolist() == [True, False, False, True, False, True, False]


def control(checkout: Path, psnr: float) -> None:
    """A paper of controls whose one row scores so much."""
    folder = checkout / "baselines/controls"
    folder.mkdir()
    (folder / "attack.py").write_text("")
    content = {"version": 1, "title": "c", "on": {"b": {}}, "variants": {"noise": {}}, "controls": ["noise"]}
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    key = trial_lines.present_keys("controls", config.benchmark("b", "quick"))["noise"]
    lines = [
        {"variant": "noise", "trial": trial, "status": "ok", "device_kind": "cpu", "execution": "loop",
         "psnr": psnr + trial, "benchmark_version": 1, "attack_version": 1, "seed": 0,
         **dict(zip(trial_lines.KEY, key, strict=True))}
        for trial in range(4)
    ]  # fmt: skip
    path = Results.at("quick").folder("controls", "b") / "trials.csv"
    trial_lines.write(path, trial_lines.frame(lines))


def test_a_winner_below_a_control_has_won_nothing(checkout: Path, enough: None) -> None:
    say(claim(">", scale="quick"), claim("<", value=25.0, scale="quick"))
    assert verdict.verdicts(Results.at("quick"))["verdict"].tolist() == ["reproduced", "reproduced"]
    control(checkout, psnr=20.0)  # as much as the better one of the two
    assert verdict.verdicts(Results.at("quick"))["verdict"].tolist() == ["undecided", "reproduced"]


def test_a_number_that_a_control_scores_too_tells_nothing(checkout: Path, enough: None) -> None:
    say(number(value=21.5, scale="quick", tolerance=2.5, gates=True))
    before = verdict.verdicts(Results.at("quick")).iloc[0]
    control(checkout, psnr=18.0)  # 19.5 on average
    after = verdict.verdicts(Results.at("quick")).iloc[0]
    assert (before["verdict"], before["gates"]) == ("reproduced", True)
    assert (after["verdict"], after["gates"]) == ("undecided", False)


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
    say(number(value=21.5, scale="quick"), number(variant="unrun", scale="quick", cause='a "cause", with comma'))
    verdict.write_verdicts(Results.at("quick"))
    path = Results.at("quick").file("published.csv")
    before = path.read_bytes()
    verdict.write_verdicts(Results.at("quick"))
    assert path.read_bytes() == before
    got = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert got["ours"].tolist() == ["21.5", ""] and got.loc[1, "cause"] == 'a "cause", with comma'
    assert verdict.verdicts(Results.at("paper")).empty


def test_no_published_numbers_at_all(checkout: Path) -> None:
    assert (
        verdict.verdicts(Results.at("quick")).empty
        and verdict.text_of(verdict.verdicts(Results.at("quick"))).count("\n") == 1
    )
