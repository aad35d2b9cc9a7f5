"""An entry counts as registered when it stood, as it stands, at the commit of its trials."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from check_toys import TRIALS, derive, small_checkout, tamper

from leakboard import config
from leakboard.board import check, registered, verdict
from leakboard.board.registered import POST_HOC, UNKNOWN, YES
from leakboard.record import trial_lines
from leakboard.record.results import Results

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


def asked(entry: dict, *commits: str, scale: config.Scale = "paper") -> str | None:
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


@pytest.mark.parametrize("entry", [NUMBER, CLAIM])
def test_what_was_set_after_a_look_says_so_and_new_trials_do_not_undo_it(entry: dict, suite: Path) -> None:
    then = commit(suite, [{**NUMBER, "post_hoc": True}], [{**CLAIM, "post_hoc": True}])
    assert asked({**entry, "post_hoc": True}, then) == POST_HOC


def test_another_scale_is_another_promise(suite: Path) -> None:
    then = commit(suite, [NUMBER])
    assert asked({**NUMBER, "scale": ["quick", "paper"]}, then, scale="quick") == POST_HOC
    assert asked({**NUMBER, "scale": ["quick", "paper"]}, then, scale="paper") == YES


def test_without_git_or_its_commit_nobody_knows(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    then = commit(suite, [NUMBER])
    assert asked(NUMBER) == asked(NUMBER, "") == UNKNOWN
    assert asked(NUMBER, "0123456789ab") is asked(NUMBER, then, "0123456789ab") is None
    registered._blob.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert asked(NUMBER, then) is None


def test_a_file_that_was_no_yaml_then_promised_nothing(suite: Path) -> None:
    (suite / "baselines/toy/published.yaml").write_text("[: {")
    git(suite, "add", "-A")
    git(suite, "commit", "-qm", "damaged")
    assert asked(NUMBER, git(suite, "rev-parse", "HEAD").strip()) == POST_HOC


def test_a_commit_that_lacks_the_entry_tells_whatever_the_others_would(suite: Path) -> None:
    before = commit(suite)
    assert asked(NUMBER, before, "0123456789ab") == POST_HOC


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """(a checkout whose claim was set after its trials and whose number stood before them, a clone without history)"""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    origin.mkdir()
    monkeypatch.chdir(origin)
    registered._blob.cache_clear()  # a commit of the same second has the same name
    small_checkout(origin)
    file = origin / "baselines/toy/published.yaml"
    content = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**content, "claims": []}))
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "the number")):
        git(origin, *words)
    lines = trial_lines.read(origin / TRIALS)
    trial_lines.write(origin / TRIALS, lines.assign(commit=git(origin, "rev-parse", "HEAD").strip()))
    file.write_text(yaml.safe_dump(content))
    derive(origin)
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "the trials, and a claim")
    subprocess.run(["git", "clone", "-q", "--depth", "1", origin.as_uri(), str(clone)], check=True)
    monkeypatch.setattr(check, "_leaderboard_findings", lambda results: iter(()))
    return origin, clone


def words_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(folder)
    registered._blob.cache_clear()
    return verdict.verdicts(Results.at("quick"))["registered"].tolist()


@pytest.mark.parametrize("without", ["history", "git"])
def test_where_git_cannot_tell_what_the_file_states_stands(
    without: str, history: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    origin, clone = history
    assert words_of(origin, monkeypatch) == [YES, POST_HOC] and check.check(origin) == []
    if without == "git":
        shutil.rmtree(clone / ".git")
    assert words_of(clone, monkeypatch) == [YES, POST_HOC]
    found = check.check(clone)
    assert [(one.severity, one.found) for one in found] == [
        ("warning", "no commits of trials of toy: what the file states stands")
    ]


def test_what_was_changed_in_a_clone_without_history_is_no_more_stated(
    history: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = history[1]
    tamper(clone / "baselines/toy/published.yaml", "value: 37.0", "value: 38.0")
    assert words_of(clone, monkeypatch) == [UNKNOWN, POST_HOC]
    (clone / "results/quick/published.csv").write_bytes(b'\xff\x00,\n"')
    assert words_of(clone, monkeypatch) == [UNKNOWN, UNKNOWN]
    (clone / "results/quick/published.csv").unlink()
    assert words_of(clone, monkeypatch) == [UNKNOWN, UNKNOWN]
