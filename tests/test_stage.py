"""A stage resumes: kills, interrupts, other workers and other machines cost trials under way and change no number."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from toys import GRAY, QUALITY, ROOT, checkout

from leakboard import config
from leakboard.record import trial_lines
from leakboard.record.results import Results
from leakboard.run.stage import Stage, reproduce, stages

DLG = "lenet_mnist_gradient"
NOISE = "return Reconstruction(torch.rand(seen.shape, generator=rng))"


def console(*words: str, folder: Path, **more) -> subprocess.Popen:
    """The console in a process group of its own, as a shell would start it in front.

    What starts the tests in the background has interrupts ignored, which children inherit; a terminal does not.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    call = [sys.executable, "-c", "from leakboard.cli import app; app()", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    more.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    return subprocess.Popen(call, cwd=folder, env=environment, start_new_session=True, **pipes, **more)


def end(process: subprocess.Popen, how: signal.Signals) -> str:
    """Interrupt all as a terminal does, or kill the parent alone; either way nothing of it may stay behind."""
    (os.kill if how == signal.SIGKILL else os.killpg)(process.pid, how)
    try:
        said = process.communicate(timeout=120)[0]
        deadline = time.monotonic() + 120
        while _alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _alive(process.pid), "workers outlive their parent"
    finally:
        if _alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    return said


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def store(results: Path, paper: str = "toy", name: str = "toy_gradient") -> pd.DataFrame:
    return trial_lines.read(results / "quick" / "papers" / paper / name / "trials.csv")


def wait_for(results: Path, lines: int, process: subprocess.Popen, **where: str) -> pd.DataFrame:
    """The store as soon as it has so many lines."""
    deadline = time.monotonic() + 300
    while len(found := store(results, **where)) < lines:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def lines_of(results: Path, paper: str = "toy", name: str = "toy_gradient") -> list[str]:
    """The store as text, line by line."""
    return (results / "quick" / "papers" / paper / name / "trials.csv").read_text().splitlines()


def same_quality(one: pd.DataFrame, other: pd.DataFrame) -> None:
    columns = ["variant", "trial", "status", "evaluations", "loss", "victim_sha", "model_sha", *QUALITY]
    pd.testing.assert_frame_equal(one[columns], other[columns], check_exact=True)


@pytest.fixture
def suite(tmp_path, monkeypatch) -> Path:
    """A checkout with a toy paper of four trials; the tests run inside it."""
    folder = checkout(tmp_path / "suite", NOISE)
    monkeypatch.chdir(folder)
    return folder


def toy_stages(results: Path) -> list[Stage]:
    return stages(Results.at("quick", results), "toy", None)


def test_paper_scale_leaves_out_boards_that_wait_for_it_unless_one_is_named(suite, tmp_path):
    params = suite / "baselines" / "toy" / "params.yaml"
    content = yaml.safe_load(params.read_text())
    params.write_text(yaml.safe_dump({**content, "on": {}, "quick_only": content["on"]}))
    for scale, found in (("quick", 1), ("paper", 0)):
        assert len(stages(Results.at(scale, tmp_path), "toy", None)) == found
    (named,) = stages(Results.at("paper", tmp_path), "toy", "toy_gradient")
    assert list(named.variants) == ["only"]


def test_a_killed_run_goes_on_and_attacks_no_finished_trial_again(tmp_path, monkeypatch):
    """The real thing: iDLG on digits, on more trials than are official, killed without warning after two of them."""
    killed, whole, where = tmp_path / "killed", tmp_path / "whole", {"paper": "idlg", "name": DLG}
    suite = tmp_path / "suite"
    for part in ("benchmarks", "baselines"):
        shutil.copytree(ROOT / part, suite / part)
    asked = suite / "benchmarks" / f"{DLG}.yaml"
    text = asked.read_text()
    assert "trials: 8\n" in text
    asked.write_text(text.replace("trials: 8\n", "trials: 60\n"))
    monkeypatch.chdir(suite)
    process = console("reproduce", "idlg", DLG, "--workers", "1", "--out", str(killed), folder=suite)
    wait_for(killed, 2, process, **where)
    end(process, signal.SIGKILL)
    before = lines_of(killed, **where)
    assert 3 <= len(before) < 61, "killed half way"
    some = range(len(before) + 1)  # two more than there are below the header
    assert reproduce(stages(Results.at("quick", killed), "idlg", DLG), trials=some, workers=0) == 2
    assert set(before) <= set(lines_of(killed, **where)), "finished lines stay as they are, seconds included"
    reproduce(stages(Results.at("quick", whole), "idlg", DLG), trials=some, workers=0)
    same_quality(store(killed, **where), store(whole, **where))
    assert sorted(store(killed, **where)["trial"]) == list(some)


def test_an_interrupt_exits_130_and_keeps_the_store(tmp_path):
    folder = checkout(tmp_path / "suite", 'time.sleep(0.2 if not Path("out").exists() else 0.6)\n' + NOISE, trials=30)
    process = console("reproduce", "toy", "--workers", "1", "--out", "out", folder=folder)
    wait_for(folder / "out", 1, process)
    said = end(process, signal.SIGINT)
    assert process.returncode == 130, said
    assert "every finished trial is kept" in said and "Traceback" not in said
    assert 1 <= len(store(folder / "out")) < 30


def test_workers_and_no_workers_give_the_same_bits(suite, tmp_path):
    assert reproduce(toy_stages(tmp_path / "here"), workers=0) == 4
    assert reproduce(toy_stages(tmp_path / "there"), workers=2) == 4
    same_quality(store(tmp_path / "here"), store(tmp_path / "there"))
    assert reproduce(toy_stages(tmp_path / "here"), workers=2) == 0, "nothing is left to do"


DYING = """
if seen.public.images.sum() and round(float(seen.gradient[-1].abs().sum()), 4) == {fate}:
    marker = Path({marker!r})
    if {always} or not marker.exists():
        marker.write_text(marker.read_text() + "x" if marker.exists() else "x")
        import multiprocessing, os, signal
        os.kill(multiprocessing.parent_process().pid, signal.SIGKILL)  # the worker, not the attack's own process
        time.sleep(5)
"""


@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
def test_a_dying_worker_costs_at_most_its_own_trial(always, tmp_path, monkeypatch):
    from leakboard.run.trial import secret
    from leakboard.victim.leak import gradient
    from leakboard.victim.network import network

    folder = checkout(tmp_path / "suite", NOISE)
    monkeypatch.chdir(folder)
    asked = config.benchmark("toy_gradient", "quick")
    slope = gradient(network(asked, 2), __import__("torch").nn.CrossEntropyLoss(), secret(asked, 2))
    fate = round(float(slope[-1].abs().sum()), 4)
    dying = DYING.format(fate=fate, always=always, marker=str(tmp_path / "died"))
    folder = checkout(tmp_path / "dying", dying + NOISE)
    monkeypatch.chdir(folder)
    reproduce(toy_stages(folder / "out"), workers=2 if always else 1)
    lines = store(folder / "out")
    assert lines["trial"].tolist() == [0, 1, 2, 3]
    deaths = len((tmp_path / "died").read_text())
    if always:
        assert lines["status"].tolist() == ["ok", "ok", "failed", "ok"] and deaths == 2
        assert "died twice" in lines["reason"][2] and lines["mse"].notna().all()
    else:
        assert lines["status"].tolist() == ["ok"] * 4 and deaths == 1


def test_parts_of_a_stage_add_up_to_the_whole(suite, tmp_path):
    for part in (range(0, 2), range(2, 4)):
        reproduce(toy_stages(tmp_path / "parts"), trials=part, workers=0)
    reproduce(toy_stages(tmp_path / "whole"), trials=range(4), workers=0)
    same_quality(store(tmp_path / "parts"), store(tmp_path / "whole"))
    apart = [tmp_path / "one", tmp_path / "two"]
    for results, part in zip(apart, (range(0, 2), range(2, 4)), strict=True):
        reproduce(toy_stages(results), trials=part, workers=0)
    same_quality(trial_lines.merge(store(apart[1]), store(apart[0])), store(tmp_path / "whole"))


def test_fresh_ignores_what_is_there(suite, tmp_path):
    reproduce(toy_stages(tmp_path), workers=0)
    first = store(tmp_path)
    assert reproduce(toy_stages(tmp_path), workers=0) == 0
    assert reproduce(toy_stages(tmp_path), trials=range(2), workers=0, fresh=True) == 2
    second = store(tmp_path)
    assert second["trial"].tolist() == [0, 1]
    same_quality(first[:2], second)


def test_lines_of_older_settings_are_run_again_and_others_stay(suite, tmp_path):
    path = suite / "baselines" / "toy" / "params.yaml"
    text = path.read_text()
    path.write_text(text.replace("variants:\n", "variants:\n  other: {path: a}\n"))
    assert reproduce(toy_stages(tmp_path), workers=0) == 8
    before = lines_of(tmp_path)
    path.write_text(path.read_text().replace("{path: a}", "{path: b}"))
    assert reproduce(toy_stages(tmp_path), workers=0) == 4
    after = lines_of(tmp_path)
    assert len(after) == len(before) == 9
    assert [line for line in before if ",only," in line] == [line for line in after if ",only," in line]
    assert not {line for line in before if ",other," in line} & set(after)


@pytest.mark.parametrize("change", ["source", "budget", "engine"])
def test_any_change_that_moves_numbers_makes_lines_stale(change, suite, tmp_path, monkeypatch):
    reproduce(toy_stages(tmp_path), workers=0, trials=range(2))
    if change == "source":
        attack = suite / "baselines" / "toy" / "attack.py"
        attack.write_text(attack.read_text() + "# a word\n")
    elif change == "budget":
        question = suite / "benchmarks" / "toy_gradient.yaml"
        question.write_text(question.read_text().replace("budget: 20", "budget: 21"))
    else:
        monkeypatch.setattr("leakboard.ENGINE", 10**6)
    assert reproduce(toy_stages(tmp_path), workers=0, trials=range(2)) == 2
    assert len(store(tmp_path)) == 2, "the new line takes the place of the stale one"


def test_stale_lines_that_nobody_asks_for_go_with_the_next_run(suite, tmp_path):
    """Of trials beyond the official ones and of rows that are gone; current lines beyond them stay."""
    reproduce(toy_stages(tmp_path), workers=0)
    question = suite / "benchmarks" / "toy_gradient.yaml"
    text = question.read_text()
    question.write_text(text.replace("trials: 4", "trials: 2"))
    assert reproduce(toy_stages(tmp_path), workers=0) == 0 and len(store(tmp_path)) == 4
    question.write_text(text.replace("trials: 4", "trials: 2").replace("budget: 20", "budget: 21"))
    reproduce(toy_stages(tmp_path), workers=0)
    assert store(tmp_path)["trial"].tolist() == [0, 1]
    question.write_text(text.replace("trials: 4", "trials: 1").replace("budget: 20", "budget: 22"))
    reproduce(toy_stages(tmp_path), workers=0)
    assert store(tmp_path)["trial"].tolist() == [0]


def test_lines_of_a_row_that_is_gone_go_though_nothing_lacks(suite, tmp_path):
    params = suite / "baselines" / "toy" / "params.yaml"
    rows = yaml.safe_load(params.read_text())
    params.write_text(yaml.safe_dump({**rows, "variants": {**rows["variants"], "gone": {}}}))
    reproduce(toy_stages(tmp_path), workers=0)
    assert set(store(tmp_path)["variant"]) == {"only", "gone"}
    params.write_text(yaml.safe_dump(rows))
    assert reproduce(toy_stages(tmp_path), workers=0) == 0
    assert set(store(tmp_path)["variant"]) == {"only"}


def test_more_trials_or_another_metric_do_not_attack_again(suite, tmp_path):
    reproduce(toy_stages(tmp_path), workers=0)
    question = suite / "benchmarks" / "toy_gradient.yaml"
    text = question.read_text().replace("trials: 4", "trials: 5").replace("about:", "about:\n  metrics: [ssim]")
    question.write_text(text)
    assert reproduce(toy_stages(tmp_path), workers=0) == 1


def test_a_failure_is_a_result_and_is_not_tried_again(tmp_path, monkeypatch):
    folder = checkout(tmp_path / "suite", "raise RuntimeError('rude')")
    monkeypatch.chdir(folder)
    assert reproduce(toy_stages(tmp_path), workers=0) == 4
    assert store(tmp_path)["status"].tolist() == ["failed"] * 4
    assert reproduce(toy_stages(tmp_path), workers=0) == 0


def test_a_skipped_benchmark_is_recorded_with_its_reason(tmp_path, monkeypatch):
    folder = checkout(tmp_path / "suite", GRAY)
    attack = folder / "baselines" / "toy" / "attack.py"
    attack.write_text(attack.read_text().replace("seen: Gradient", "seen: ModelUpdate"))
    monkeypatch.chdir(folder)
    reproduce(toy_stages(tmp_path), workers=0)
    assert set(store(tmp_path)["status"]) == {"skipped"} and "ModelUpdate" in store(tmp_path)["reason"][0]


def test_progress_counts_every_trial_and_derived_files_are_there(suite, tmp_path):
    told: list[tuple[str, int, int, str]] = []
    reproduce(toy_stages(tmp_path), workers=0, report=lambda *state: told.append(state))
    assert told == [("toy toy_gradient", done, 4, "") for done in (1, 2, 3, 4)]
    folder = tmp_path / "quick" / "papers" / "toy" / "toy_gradient"
    wanted = {"trials.csv", "metrics.json", "timing.json", "curve.csv", "grid.png"}
    assert {path.name for path in folder.iterdir()} == wanted


def test_unknown_run_of_a_paper_names_its_runs(suite, tmp_path):
    with pytest.raises(config.ConfigError, match="does not run on 'nowhere'; its runs: toy_gradient"):
        stages(Results.at("quick", tmp_path), "toy", "nowhere")
