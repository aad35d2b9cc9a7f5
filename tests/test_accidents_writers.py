"""Several runs that save into one folder at once: nothing is lost, nothing is there twice, nobody reads half a save."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import time
from pathlib import Path

import pytest
from accidents import BODY, QUICK, WORDS, assert_whole, process, toy_stage, while_writing
from toys import ROOT, checkout

from leakboard.record import curve_lines, saving, trial_lines
from leakboard.record.aggregate import aggregate
from leakboard.record.results import Results
from leakboard.run import kept, opened, rescore, shares
from leakboard.run.stage import reproduce


@pytest.fixture
def suite(tmp_path, monkeypatch) -> Path:
    folder = checkout(tmp_path / "suite", QUICK, trials=6)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(opened, "SAVE_SECONDS", 0.0)
    return folder


def run(results: Path, trials: range, **more) -> int:
    return reproduce([toy_stage(results)], trials=trials, workers=0, **more)


def once(do):
    """A report that does something after the first trial."""
    did: list[bool] = []

    def report(*state) -> None:
        if not did:
            did.append(True)
            do()

    return report


@pytest.mark.parametrize("parts", [("0:12", "12:24"), ("0:24", "0:24"), ("0:16", "8:24")], ids=str)
def test_two_processes_at_once_lose_nothing(parts, tmp_path, monkeypatch):
    """Before, each wrote the lines that it knew over those of the other: half were lost, with exit status 0."""
    folder, results = checkout(tmp_path / "suite", BODY.format(seconds=0.1), trials=24), tmp_path / "out"
    monkeypatch.chdir(folder)
    words = (*WORDS, "--workers", "1", "--out", str(results), "--trials")
    both = [process(*words, part, folder=folder) for part in parts]
    said = [one.communicate(timeout=300)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert_whole(results, 24)
    assert run(results, range(24)) == 0, "and the next call has nothing to do"


def test_a_save_starts_from_what_lies_there_and_not_from_what_was_read(suite, tmp_path):
    """Another run begins and ends between two saves of this one."""
    run(tmp_path / "out", range(3), report=once(lambda: run(tmp_path / "out", range(3, 6))))
    assert_whole(tmp_path / "out", 6)


def test_a_trial_that_two_runs_have_run_stays_as_the_first_saved_it(suite, tmp_path):
    file = toy_stage(tmp_path / "out").place.file
    seen: list[str] = []

    def meanwhile() -> None:
        run(tmp_path / "out", range(6))
        seen.extend(file.read_text().splitlines())

    run(tmp_path / "out", range(6), report=once(meanwhile))
    assert file.read_text().splitlines() == seen and len(seen) == 7
    assert_whole(tmp_path / "out", 6)


def test_fresh_drops_what_it_found_and_nothing_that_came_since(suite, tmp_path):
    run(tmp_path / "out", range(4))
    old = toy_stage(tmp_path / "out").place.file.read_text().splitlines()[1:]
    run(tmp_path / "out", range(2), fresh=True, report=once(lambda: run(tmp_path / "out", range(4, 6))))
    lines = assert_whole(tmp_path / "out")
    assert lines["trial"].tolist() == [0, 1, 4, 5]
    assert not set(old) & set(toy_stage(tmp_path / "out").place.file.read_text().splitlines())
    assert set(curve_lines.read(toy_stage(tmp_path / "out").place.curves)["trial"]) == {0, 1, 4, 5}


def test_what_was_fresh_and_killed_keeps_the_old_curves_until_the_old_lines_are_gone(suite, tmp_path, monkeypatch):
    run(tmp_path / "out", range(4))

    def stop() -> None:
        raise RuntimeError("killed")

    while_writing(monkeypatch, "trials.csv", stop)
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "out", range(2), fresh=True)
    stage = toy_stage(tmp_path / "out")
    assert set(curve_lines.read(stage.place.curves)["trial"]) == set(trial_lines.read(stage.place.file)["trial"])


def test_aggregates_follow_from_all_lines_whoever_ends_last(suite, tmp_path, monkeypatch):
    """Nobody saves while another derives: its aggregates would be older than the lines."""
    stage, free = toy_stage(tmp_path / "out"), []
    real = kept.draw_grid

    def draw(*words) -> None:
        monkeypatch.setattr(saving, "LOCK_SECONDS", 0.05)
        with pytest.raises(saving.SaveError, match="held by another process"), stage.place.alone():
            free.append(True)
        real(*words)

    monkeypatch.setattr(kept, "draw_grid", draw)
    run(tmp_path / "out", range(6))
    assert not free
    lines = assert_whole(tmp_path / "out", 6)
    assert json.loads((stage.folder / "metrics.json").read_text()) == aggregate(lines)


def test_scores_of_rescoring_reach_the_lines_that_lie_there_by_then(suite, tmp_path, monkeypatch):
    run(tmp_path / "out", range(3))
    meanwhile, real = once(lambda: run(tmp_path / "out", range(3, 6))), rescore._scores
    monkeypatch.setattr(rescore, "_scores", lambda *words: (meanwhile(), real(*words))[1])
    assert rescore.rescore(toy_stage(tmp_path / "out")) == (3, 0)
    assert_whole(tmp_path / "out", 6)


def test_merging_into_a_folder_that_a_run_saves_into(suite, tmp_path):
    run(tmp_path / "share", range(3, 6))
    merged = once(lambda: shares.merge([tmp_path / "share"], tmp_path / "out"))
    run(tmp_path / "out", range(3), report=merged)
    assert_whole(tmp_path / "out", 6)


def test_a_share_brings_no_curve_without_its_line(suite, tmp_path):
    """As a killed save leaves it: the curve of a trial that has no line yet."""
    run(tmp_path / "out", range(2))
    run(tmp_path / "share", range(6))
    stage = toy_stage(tmp_path / "share")
    lines = trial_lines.read(stage.place.file)
    trial_lines.write(stage.place.file, lines[lines["trial"] > 3])
    before = curve_lines.read(toy_stage(tmp_path / "out").place.curves)
    shares.merge([tmp_path / "share"], tmp_path / "out")
    after = curve_lines.read(toy_stage(tmp_path / "out").place.curves)
    assert after[after["trial"] < 3].equals(before) and set(after["trial"]) == {0, 1, 4, 5}


def test_a_step_that_an_attack_shows_twice_is_kept_once(tmp_path, monkeypatch):
    """Or what was saved could not be read at the next save."""
    monkeypatch.chdir(checkout(tmp_path / "suite", f"seen.snapshot(1, torch.zeros(seen.shape), 9)\n{QUICK}"))
    monkeypatch.setattr(opened, "SAVE_SECONDS", 0.0)
    run(tmp_path / "out", range(4))
    assert_whole(tmp_path / "out", 4)
    assert set(curve_lines.read(toy_stage(tmp_path / "out").place.curves)["loss"]) == {1, 0.5, 0.25}


def _held(lock: Path, ready, go) -> None:
    with saving.alone(lock):
        ready.set()
        go.wait(60)


def test_another_process_waits_for_the_lock(suite, tmp_path, monkeypatch):
    context = multiprocessing.get_context("spawn")
    ready, go, lock = context.Event(), context.Event(), tmp_path / "here" / "toy.lock"
    other = context.Process(target=_held, args=(lock, ready, go))
    other.start()
    assert ready.wait(60)
    monkeypatch.setattr(saving, "LOCK_SECONDS", 0.1)
    with pytest.raises(saving.SaveError, match=r"toy\.lock: not saved: found it held by another process for 0.1 s"):
        saving.alone(lock).__enter__()
    go.set()
    monkeypatch.setattr(saving, "LOCK_SECONDS", 60)
    started = time.monotonic()
    with saving.alone(lock):
        assert time.monotonic() - started < 30
    other.join(60)
    assert other.exitcode == 0


def test_the_lock_is_no_result_and_reading_needs_none(suite, tmp_path):
    run(tmp_path / "out", range(6))
    locks = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.lock")]
    assert [path.parts[0] for path in locks] in ([], ["reconstructions"])
    for path in (tmp_path / "out").rglob("*.lock"):
        path.unlink()
    assert len(Results.at("quick", tmp_path / "out").current_lines("toy", "toy_gradient")) == 6
    assert not list((tmp_path / "out").rglob("*.lock"))


def test_the_lock_of_committed_results_lies_where_git_does_not_look(monkeypatch):
    monkeypatch.chdir(ROOT)
    stage = toy_stage_of("dlg", "lenet_mnist_gradient")
    with stage.place.alone():
        asked = ["git", "status", "--porcelain", "--untracked-files=all", "--", "results", "build"]
        said = subprocess.run(asked, capture_output=True, text=True)
    if said.returncode:
        pytest.skip("no git checkout")
    assert ".lock" not in said.stdout


def toy_stage_of(paper: str, board: str):
    from leakboard.run.stage import stages

    return stages(Results.at("quick"), paper, board)[0]
