"""An entry counts as registered when it stood, as it stands, at the commit of its trials."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from leakboard import config
from leakboard.board import registered
from leakboard.board.registered import POST_HOC, UNKNOWN, YES

NUMBER = {"run": "b", "variant": "plain", "metric": "psnr", "value": 20, "tolerance": 1.0, "where": "table 1",
          "provenance": "verified"}  # fmt: skip
CLAIM = {"says": "better", "metric": "psnr", "left": {"run": "b", "variant": "plain"}, "relation": ">",
         "right": {"run": "b", "variant": "other", "paper": "dlg"}, "where": "s. 3",
         "provenance": "verified"}  # fmt: skip


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=e@example.invalid", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("benchmarks", "baselines/toy"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "-q")
    registered._blob.cache_clear()
    return tmp_path


def commit(suite: Path, numbers: list | None = None, claims: list | None = None) -> str:
    content = {"paper": "t", "citation": "c", "numbers": numbers or [], "claims": claims or []}
    (suite / "baselines/toy/published.yaml").write_text(yaml.safe_dump(content))
    git(suite, "add", "-A")
    git(suite, "commit", "-qm", "a state", "--allow-empty")
    return git(suite, "rev-parse", "--short=12", "HEAD").strip()


def asked(entry: dict, *commits: str, scale: config.Scale = "paper") -> str:
    kind = config.Claim if "left" in entry else config.PublishedNumber
    return registered.registered("toy", kind.model_validate(entry), scale, commits)


@pytest.mark.parametrize("entry", [NUMBER, CLAIM])
def test_what_stood_there_is_registered_whatever_words_stand_around_it(entry: dict, suite: Path) -> None:
    before, then = commit(suite), commit(suite, [NUMBER], [CLAIM])
    reworded = {**entry, "where": "table 2", "provenance": "secondary", "cause": "so it is"}
    assert asked(entry, then) == asked(reworded, then) == YES
    assert asked(entry, before) == asked(entry, before, then) == POST_HOC


@pytest.mark.parametrize(
    ("entry", "change"),
    [(NUMBER, {"value": 20.5}), (NUMBER, {"tolerance": 2.0}), (NUMBER, {"metric": "ssim"}),
     (NUMBER, {"variant": "other"}),
     (CLAIM, {"margin": 0.5}), (CLAIM, {"relation": ">="}), (CLAIM, {"left": {"run": "c", "variant": "plain"}}),
     (CLAIM, {"right": None, "value": 3.0})],
)  # fmt: skip
def test_what_was_changed_since_is_post_hoc(entry: dict, change: dict, suite: Path) -> None:
    then = commit(suite, [NUMBER], [CLAIM])
    assert asked({**entry, **change}, then) == POST_HOC


def test_another_scale_is_another_promise(suite: Path) -> None:
    then = commit(suite, [NUMBER])
    assert asked({**NUMBER, "scale": ["quick", "paper"]}, then, scale="quick") == POST_HOC
    assert asked({**NUMBER, "scale": ["quick", "paper"]}, then, scale="paper") == YES


def test_without_git_or_its_commit_nobody_knows(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    then = commit(suite, [NUMBER])
    assert asked(NUMBER) == asked(NUMBER, "") == asked(NUMBER, "0123456789ab") == UNKNOWN
    registered._blob.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert asked(NUMBER, then) == UNKNOWN


def test_a_file_that_was_no_yaml_then_promised_nothing(suite: Path) -> None:
    (suite / "baselines/toy/published.yaml").write_text("[: {")
    git(suite, "add", "-A")
    git(suite, "commit", "-qm", "damaged")
    assert asked(NUMBER, git(suite, "rev-parse", "HEAD").strip()) == POST_HOC
