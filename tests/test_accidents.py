"""Kills and interrupts, at random moments and inside a save: trials under way are lost, and nothing else."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from accidents import BODY, CUT, QUICK, WORDS, assert_whole, call, process, toy_stage, unlike, while_writing
from toys import checkout

from leakboard.record import saving
from leakboard.run import opened
from leakboard.run.stage import reproduce

ENDING = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
FILES = (".npz", "curve.csv", "trials.csv")  # in the order in which one save writes them
KEPT = "interrupted; every finished trial is kept"


@pytest.fixture(autouse=True)
def _handlers():
    """An interrupted command leaves signals to the system: it is about to exit."""
    before = {number: signal.getsignal(number) for number in saving.ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def suite(tmp_path, monkeypatch) -> Path:
    folder = checkout(tmp_path / "suite", QUICK)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(opened, "SAVE_SECONDS", 0.0)
    return folder


def finished_like_an_undisturbed_run(results: Path, trials: int) -> None:
    """The same call goes on from there; the finished lines stay as they are, the whole is as if nothing had been."""
    stage = toy_stage(results)
    there = stage.place.file.read_text().splitlines() if stage.place.file.exists() else []
    ran = reproduce([stage], workers=0)
    assert ran == trials - max(len(there) - 1, 0), "no finished trial runs again"
    assert set(there) <= set(stage.place.file.read_text().splitlines())
    lines = assert_whole(results, trials)
    reproduce([toy_stage(results.with_name("undisturbed"))], workers=0)
    assert unlike(lines, assert_whole(results.with_name("undisturbed"), trials)) == []


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("way", ENDING)
def test_a_signal_inside_a_save_waits_for_its_end(way, name, suite, tmp_path, monkeypatch):
    while_writing(monkeypatch, name, lambda: os.kill(os.getpid(), getattr(signal, way)), after=2)
    status, said = call(*WORDS, "--workers", "0", "--out", str(tmp_path / "out"))
    assert status == ENDING[way] and KEPT in said and "Traceback" not in said
    assert assert_whole(tmp_path / "out")["trial"].tolist() == [0, 1], "the second save was under way"
    assert not list((tmp_path / "out").rglob("*.part"))
    finished_like_an_undisturbed_run(tmp_path / "out", 4)


def test_impatience_loses_nothing_either(suite, tmp_path, monkeypatch):
    """Five signals of two kinds, in the save and right after it."""

    def often() -> None:
        for way in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), way)

    def later() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    while_writing(monkeypatch, "curve.csv", often, after=3)
    real = opened._save_all
    monkeypatch.setattr(opened, "_save_all", lambda every: (later(), real(every)))
    assert call(*WORDS, "--workers", "0", "--out", str(tmp_path / "out"))[0] in (130, 143)
    assert assert_whole(tmp_path / "out")["trial"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("name", "after"), [(".npz", 1), (".npz", 3), ("curve.csv", 2), ("trials.csv", 2)])
def test_a_kill_inside_a_save_costs_its_trials_and_no_curve(name, after, suite, tmp_path):
    """Before, the lines came first: a kill between them and the curves left a curve short for ever."""
    results = tmp_path / "out"
    code = CUT.format(name=name, after=after, number=int(signal.SIGKILL))
    killed = process(*WORDS, "--workers", "0", "--out", str(results), folder=suite, code=code)
    said = killed.communicate(timeout=120)[0]
    assert killed.returncode == -signal.SIGKILL, said
    assert len(assert_whole(results)) == after - 1
    assert list(results.rglob("*.part")), "half a file was left, which the next run removes"
    finished_like_an_undisturbed_run(results, 4)


@pytest.mark.parametrize("way", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_an_end_at_a_random_moment(way, tmp_path, monkeypatch):
    """Two workers, the whole group of processes is told to end, as a terminal or a job queue does it."""
    folder, results = checkout(tmp_path / "suite", BODY.format(seconds=0.02), trials=40), tmp_path / "out"
    running = process(*WORDS, "--workers", "2", "--out", str(results), folder=folder)
    monkeypatch.chdir(folder)
    file = toy_stage(results).place.file
    while not file.exists():
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.01)
    time.sleep(random.random() / 2)
    os.killpg(running.pid, getattr(signal, way))
    said = running.communicate(timeout=120)[0]
    if way in ENDING:
        assert running.returncode == ENDING[way] and KEPT in said and "Traceback" not in said, said
    assert 1 <= len(assert_whole(results)) < 40
    finished_like_an_undisturbed_run(results, 40)


def test_what_a_killed_save_left_goes_at_the_next_run(suite, tmp_path):
    stage = toy_stage(tmp_path / "out")
    left = [stage.folder / ".trials.csv.x1y2.part", stage.reconstructions / ".only-3.npz.x.part"]
    for path in left:
        path.parent.mkdir(parents=True)
        path.write_text("half")
    reproduce([stage], workers=0)
    assert not any(path.exists() for path in left)
    assert_whole(tmp_path / "out", 4)


def test_signals_wait_and_come_once():
    came: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with saving.uncut():
        with saving.uncut():
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
                os.kill(os.getpid(), number)
            assert came == []
        assert came == [], "an inner block ends nothing"
    assert came == [signal.SIGTERM] and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    with pytest.raises(ValueError, match="full"), saving.uncut():
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("full")
    with pytest.raises(KeyboardInterrupt), saving.uncut():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_a_thread_has_no_signals_to_wait_with():
    inside: list[bool] = []

    def work() -> None:
        with saving.uncut():
            inside.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [True]
