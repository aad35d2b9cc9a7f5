"""A benchmark that is like another: what it asks, and that the other cannot change behind its back."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from toys import KNOWS, QUESTION, ROOT

from leakboard import config

ABOUT = {"question": QUESTION["question"], "metrics": ["ssim"]}
COMMON = {key: value for key, value in QUESTION.items() if key != "question"} | {"threat": {"knows": list(KNOWS)}}
NOISE = {"gaussian_noise": {"deviation": 0.1}}


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def written(folder: Path, name: str, common: dict, **more: dict) -> None:
    content = {"common": common, "quick": {}, "paper": {}, **more}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))


def first(folder: Path, **more: object) -> None:
    written(folder, "first", {**COMMON, **more}, about=ABOUT, quick={"trials": 3})


def stamp(folder: Path) -> str:
    """As the message says it."""
    written(folder, "asks", {"like": "first@"})
    with pytest.raises(config.ConfigError) as caught:
        config.benchmark("asks", "quick", folder)
    (found,) = [word.rstrip(",") for word in str(caught.value).split() if word.startswith("first@") and word[6:] != ","]
    return found


def test_it_asks_the_same_with_its_own_on_top(tmp_path):
    first(tmp_path)
    written(tmp_path, "second", {"like": stamp(tmp_path), "defence": NOISE}, quick={"budget": 9})
    one, other = (config.benchmark(name, "quick", tmp_path) for name in ("first", "second"))
    assert (other.defence, other.budget, other.trials, other.question) == (NOISE, 9, 3, one.question)
    assert other.model_copy(update={"defence": {}, "budget": one.budget}).hash == one.hash != other.hash
    assert config.benchmark("second", "paper", tmp_path).budget == one.budget and other.metrics == ("ssim",)


def test_what_changes_there_must_change_here(tmp_path):
    """dvc tracks this file and never the other: so the other cannot move and leave this one as it is."""
    first(tmp_path)
    written(tmp_path, "second", {"like": stamp(tmp_path)})
    before = config.benchmark("second", "quick", tmp_path).hash
    first(tmp_path, budget=21)
    with pytest.raises(
        config.ConfigError, match=r"second\.yaml: common\.like: found first@\w+, expected first@\w+, as"
    ):
        config.benchmark("second", "quick", tmp_path)
    written(tmp_path, "second", {"like": stamp(tmp_path)})
    assert config.benchmark("second", "quick", tmp_path).hash != before
    written(tmp_path, "first", {**COMMON, "budget": 21}, about={**ABOUT, "question": "Why?"}, quick={"trials": 3})
    assert config.benchmark("second", "quick", tmp_path).question == "Why?", "another wording stales nothing"


@pytest.mark.parametrize(
    ("common", "says"),
    [
        ({"like": "first"}, "expected the name of another benchmark, @, stamp"),
        ({"like": 7}, "found 7, expected the name"),
        ({"like": "../first@abc"}, "expected the name"),
        ({"like": "second@abc"}, "expected the name of another"),
        ({"like": "gone@abc"}, r"gone\.yaml does not exist"),
        ({"like": "third@abc"}, "is itself like another benchmark"),
        ({"like": "first@abc", "tirals": 3}, r"second\.yaml: common: found \['tirals'\]"),
    ],
)
def test_what_is_no_likeness_is_one_clear_line(common, says, tmp_path):
    first(tmp_path)
    written(tmp_path, "third", {"like": "first@abc"})
    written(tmp_path, "second", common)
    with pytest.raises(config.ConfigError, match=says) as caught:
        config.benchmark("second", "quick", tmp_path)
    assert "\n" not in str(caught.value)


def test_boards_under_a_defence_ask_what_the_board_that_they_are_like_asks():
    """All but the defence, and of a sum the clients behind it and their images; of that board nobody is defended."""
    alike = [name for name in config.benchmark_names() if config.like(name) and "_gradient_" in name]
    assert len(alike) >= 30
    for name in alike:
        for scale in config.SCALES:
            asked, other = config.benchmark(name, scale), config.benchmark(config.like(name), scale)
            same = {"defence": {}, "federation": None, "batch": other.batch}
            assert asked.defence and not other.defence
            assert asked.model_copy(update=same).hash == other.hash, name
            summed = "secure_aggregation" in asked.defence
            assert summed or (asked.batch, asked.federation) == (other.batch, other.federation)
            assert not summed or asked.batch % asked.federation.clients == 0
