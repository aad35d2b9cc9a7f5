"""`leakboard run` keeps what it has and goes on from it; an attack that always fails says why, and ranks nowhere."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from accidents import BODY, QUICK, call, process, while_writing
from toys import checkout, toy

from leakboard import cli, config
from leakboard.board import tables
from leakboard.board.estimates import Sample
from leakboard.record import saving, trial_lines
from leakboard.run import opened, tryout

RUDE = 'raise RuntimeError("rude [/b] words")'
HALF = "if round(float(seen.gradient[0].sum()), 3) % 2 < 1:\n    raise RuntimeError('half')\n" + QUICK


@pytest.fixture(autouse=True)
def suite(tmp_path, monkeypatch) -> Path:
    folder = checkout(tmp_path / "suite", QUICK, trials=6)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(opened, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(cli.screen, "_width", 400)
    handlers = {number: signal.getsignal(number) for number in saving.ENDING}
    yield folder
    for number, handler in handlers.items():
        signal.signal(number, handler)


def board(attack: Path | str, trials: range | None = None, told: list | None = None):
    asked = config.benchmark("toy_gradient", "quick")
    report = (told if told is not None else []).append
    return tryout.tried(str(attack), asked, trials, "cpu", 0, lambda *state: report(state))


def more_trials(suite: Path, trials: int) -> None:
    question = suite / "benchmarks" / "toy_gradient.yaml"
    question.write_text(question.read_text().replace("trials: 6", f"trials: {trials}"))


def kept_lines(suite: Path, name: str = "own") -> list[str]:
    """What lies in build/ of an attack, line by line, without the header."""
    return (suite / "build" / "runs" / name / "quick" / "toy_gradient" / "trials.csv").read_text().splitlines()[1:]


def interrupted(suite: Path, path: Path, monkeypatch, after: int) -> list[str]:
    """The lines of a run that Ctrl-C meets in its so-manieth save."""
    with monkeypatch.context() as patch:
        while_writing(patch, "trials.csv", lambda: os.kill(os.getpid(), signal.SIGINT), after)
        status, said = call("run", str(path), "toy_gradient", "--workers", "0")
    assert status == 130 and "every finished trial is kept" in said
    return kept_lines(suite)


def test_an_interrupted_run_keeps_its_trials_and_goes_on_from_them(suite, monkeypatch):
    path, told = toy(suite, QUICK, name="own"), []
    before = interrupted(suite, path, monkeypatch, after=2)
    assert len(before) == 2
    got, picture, reasons = board(path, told=told)
    assert [state[1:3] for state in told] == [(done, 4) for done in (1, 2, 3, 4)], "two of six were there"
    assert set(before) < set(kept_lines(suite)) and len(kept_lines(suite)) == 6
    assert got["n"].tolist() == ["6"] and picture.is_file() and reasons == []


def test_the_real_thing_with_workers_and_a_kill(suite):
    path = toy(suite, BODY.format(seconds=0.2), name="own")
    more_trials(suite, 30)
    for way in (signal.SIGKILL, signal.SIGTERM):
        before = len(kept_lines(suite)) if way == signal.SIGTERM else 0
        running = process("run", str(path), "toy_gradient", "--workers", "1", folder=suite)
        deadline = time.monotonic() + 120
        file = suite / "build" / "runs" / "own" / "quick" / "toy_gradient" / "trials.csv"
        while not file.exists() or len(kept_lines(suite)) <= before:
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(running.pid, way)
        said = running.communicate(timeout=120)[0]
        tracebacks = said.split("Traceback")[1:]
        if way == signal.SIGKILL:  # Python's fork server, left behind, may find its line cut: that, and nothing else
            tracebacks = [one for one in tracebacks if "forkserver.py" not in one or "EOFError" not in one]
        assert running.returncode == (143 if way == signal.SIGTERM else -way) and not tracebacks, said
    there = kept_lines(suite)
    assert 2 <= len(there) < 30
    told: list = []
    board(path, told=told)
    assert len(told) == 30 - len(there) and set(there) <= set(kept_lines(suite))


@pytest.mark.parametrize("change", ["source", "question", "engine"])
def test_a_run_of_another_attack_or_question_starts_anew(change, suite, monkeypatch):
    path, told = toy(suite, QUICK, name="own"), []
    before = interrupted(suite, path, monkeypatch, after=2)
    if change == "source":
        path.write_text(path.read_text() + "# a word\n")
    elif change == "question":
        question = suite / "benchmarks" / "toy_gradient.yaml"
        question.write_text(question.read_text().replace("budget: 20", "budget: 21"))
    else:
        monkeypatch.setattr("leakboard.ENGINE", 10**6)
    got = board(path, told=told)[0]
    assert len(told) == 6 and got["n"].tolist() == ["6"]
    assert len(kept_lines(suite)) == 6 and not set(before) & set(kept_lines(suite))


def test_a_run_that_has_ended_starts_anew(suite):
    """What its file imports from elsewhere may have changed: the answer of yesterday is none of today."""
    path, told = toy(suite, QUICK, name="own"), []
    board(path)
    before = kept_lines(suite)
    board(path, told=told)
    assert len(told) == 6 and len(kept_lines(suite)) == 6 and not set(before) & set(kept_lines(suite))
    assert board(path, range(2))[0]["n"].tolist() == ["2"] and len(kept_lines(suite)) == 2


def test_pictures_are_of_this_run(suite, monkeypatch):
    """An older attack of the same name has left reconstructions of trials that the new one has not run."""
    path = toy(suite, QUICK, name="own")
    board(path)
    path.write_text(path.read_text() + "# a word\n")
    shown: list = []
    monkeypatch.setattr(tryout.kept, "draw_grid", lambda path, pictures: shown.append(pictures))
    board(path, range(3))
    assert {name: list(trials) for name, trials in shown[0].items()} == {"default": [0, 1, 2]}


def test_two_runs_of_one_attack_at_once(suite):
    path = toy(suite, BODY.format(seconds=0.05), name="own")
    more_trials(suite, 20)
    words = ("run", str(path), "toy_gradient", "--workers", "1")
    both = [process(*words, folder=suite) for _ in range(2)]
    said = [one.communicate(timeout=300)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert len(kept_lines(suite)) == 20


@pytest.mark.parametrize("attack", ["own", "toy"])
def test_an_attack_that_always_fails_says_why_and_has_no_rank(attack, suite):
    path = toy(suite, RUDE, name="own") if attack == "own" else suite / "baselines" / "toy" / "attack.py"
    path.write_text(path.read_text().replace("images = torch.rand", f"{RUDE}\n        images = torch.rand"))
    told: list = []
    got, _, reasons = board(path if attack == "own" else "toy", told=told)
    assert got["rank"].tolist() == ["-"]
    assert len(reasons) == 1 and "no trial of 6 succeeded; the first: RuntimeError: rude [/b] words" in reasons[0]
    assert [state[3] for state in told] == ["RuntimeError: rude [/b] words"] * 6


def test_some_failures_are_no_failure(suite):
    path, told = toy(suite, HALF, name="own"), []
    got, _, reasons = board(path, told=told)
    statuses = set(trial_lines.read(suite / "build/runs/own/quick/toy_gradient/trials.csv")["status"])
    assert statuses == {"ok", "failed"} and reasons == []
    assert got["rank"].tolist() == ["1"] and told[-1][3] == ""


def test_a_stage_that_always_fails_is_not_called_done(suite):
    attack = suite / "baselines" / "toy" / "attack.py"
    attack.write_text(attack.read_text().replace("images = torch.rand", f"{RUDE}\n        images = torch.rand"))
    words = ("reproduce", "toy", "toy_gradient", "--workers", "0", "--out", str(suite / "out"))
    why = "toy / only on toy_gradient: no trial of 6 succeeded; the first: RuntimeError: rude [/b] words"
    status, said = call(*words)
    assert status == 1 and why in said and "done" not in said
    assert "failed toy toy_gradient: all 6 trials, RuntimeError: rude [/b] words" in said
    status, said = call(*words)
    assert status == 1 and why in said and "0 trials run" in said, "said again where nothing is left to do"
    status, said = call("run", str(toy(suite, RUDE, name="own")), "toy_gradient", "--workers", "0")
    assert status == 1 and why.replace("toy / only", "own / default") in said and "done" not in said


def test_what_was_skipped_has_not_failed():
    lines = pd.DataFrame({"status": ["skipped"], "variant": ["only"], "device_kind": ["cpu"], "trial": [0]})
    assert opened.failed_rows(lines) == []


def sample(score: float) -> Sample:
    return Sample("psnr", score + np.arange(4) / 10, ("a", "b", "c", "d"))


def test_rows_that_failed_throughout_are_shown_and_not_ranked():
    named = {"benchmark": "b", "variant": "only", "device_kind": "cpu", "metric": "psnr", "n": 4, "psnr": 6.0}
    scores = {"good": (20.0, 0), "lucky": (30.0, 4), "half": (10.0, 2)}
    rows = [
        {**named, "paper": name, "score": score, "failures": bad, "sample": sample(score)}
        for name, (score, bad) in scores.items()
    ]
    got = tables.ranked(pd.DataFrame(rows)).set_index("paper")["rank"].to_dict()
    assert got == {"lucky": "-", "good": "1", "half": "2"}
