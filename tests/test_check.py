"""`leakboard check` on a small checkout: silent when all is well, and every kind of tampering is named."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from check_toys import TRIALS, small_checkout, tamper

import leakboard
from leakboard import config
from leakboard.board import check, line_findings, verdict
from leakboard.config.trainings import Training
from leakboard.config.yaml12 import Yaml12
from leakboard.record import aggregate, locks, trial_lines
from leakboard.record.results import Results

leaderboard_findings = check._leaderboard_findings  # before the fixture below silences it


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verdict, "ENOUGH_FOR_NUMBERS", 3)
    small_checkout(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def no_leaderboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_leaderboard_findings", lambda results: iter(()))


def files_and_whats(root: Path) -> list[tuple[str, str]]:
    return [(one.file, one.what) for one in check.check(root) if one.severity == "error"]


def test_an_honest_checkout_has_no_findings(checkout: Path) -> None:
    assert check.check(checkout) == []
    assert not check.failed([]) and check.rows([]) == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("mse", 0.001), ("psnr", 60.0), ("above20", 0.0), ("above30", 0.0), ("success_1e-2", 0.0),
        ("success_1e-3", 1.0), ("success_1e-4", 0.5), ("exact", 0.5), ("mse_each", "0.0001 0.0002"),
        ("psnr_each", "50 50"), ("psnr_each", "50"), ("label_accuracy", 1.5),
    ],
)  # fmt: skip
def test_a_number_in_a_line_is_caught_by_its_neighbours(checkout: Path, column: str, value: object) -> None:
    lines = trial_lines.read(checkout / TRIALS)
    lines.loc[0, column] = value
    faults = list(line_findings.line_differences(lines, "b", "quick"))
    assert any("trial 0" in what for what, _, _ in faults)


def test_a_changed_line_is_named_in_every_file_behind_it(checkout: Path) -> None:
    lines = trial_lines.read(checkout / TRIALS)
    lines.loc[0, ["mse", "mse_each"]] = [0.002, "0.002 0.002"]
    trial_lines.write(checkout / TRIALS, lines)
    got = files_and_whats(checkout)
    assert (TRIALS, "psnr of plain trial 0 (cpu, loop)") in got
    assert (TRIALS, "md5 in baselines/toy/dvc.lock") in got
    assert any(file.endswith("metrics.json") and "mse/mean" in what for file, what in got)


def test_a_line_twice_a_foreign_line_and_other_victims(checkout: Path) -> None:
    lines = trial_lines.read(checkout / TRIALS)
    doubled = trial_lines.frame([*lines.to_dict("records"), lines.iloc[0].to_dict()])
    doubled.loc[1, ["benchmark", "scale"]] = ["c", "paper"]
    doubled.loc[3, "victim_sha"] = "other"
    whats = [what for what, _, _ in line_findings.line_differences(doubled, "b", "quick")]
    assert whats == [
        "plain trial 0 (cpu, loop) stands once", "benchmark of a line", "scale of a line",
        "victims of trial 0 are the same",
    ]  # fmt: skip


def test_lines_of_another_training_of_the_victim_are_found(checkout: Path) -> None:
    file, record = checkout / TRIALS, checkout / "results/quick/papers/victims/b/metrics.json"
    benchmark = config.benchmark("b", "quick")
    lines = trial_lines.read(file).assign(model_sha=["0123456789ab", "", "ba9876543210"])

    def found(**changes: object) -> list[str]:
        asked = benchmark.model_copy(update=changes)
        return [one.found for one in line_findings.of_other_victims(file, "toy", asked, lines, record)]

    assert found() == [], "no victim has a record"
    record.parent.mkdir(parents=True)
    record.write_text('{"sha256": "0123456789ab"}')
    assert found() == ["ba9876543210"]
    assert found(threat=benchmark.threat.model_copy(update={"conduct": "malicious"})) == []
    assert found(training=Training(epochs=1, learning_rate=0.1, anew=True)) == [], "the record is of the first trial's"
    trial_lines.write(file, lines)
    assert (TRIALS, "the victims are those of the record") in files_and_whats(checkout)


def test_aggregates_and_timing(checkout: Path) -> None:
    folder = (checkout / TRIALS).parent
    tamper(folder / "metrics.json", '"n": 3', '"n": 30')
    tamper(folder / "timing.json", '"median_seconds": 1.0', '"median_seconds": 0.5')
    assert files_and_whats(checkout) == [
        ("results/quick/papers/toy/b/metrics.json", "plain/cpu/n follows from trials.csv"),
        ("results/quick/papers/toy/b/timing.json", "plain/cpu/loop/median_seconds follows from trials.csv"),
    ]
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["plain"]["cpu"]["psnr"]
    aggregate.write_json(folder / "metrics.json", metrics)
    assert sum("psnr" in what for _, what in files_and_whats(checkout)) == 4
    (folder / "timing.json").unlink()
    assert ("results/quick/papers/toy/b/timing.json", "exists") in files_and_whats(checkout)


def test_a_verdict_and_a_missing_table(checkout: Path) -> None:
    path = checkout / "results/quick/published.csv"
    tamper(path, "undecided", "missed")
    assert files_and_whats(checkout) == [("results/quick/published.csv", "verdict of toy b/plain")]
    path.write_text(path.read_text().rsplit("toy,", 1)[0])
    assert files_and_whats(checkout) == [("results/quick/published.csv", "columns and number of rows")]
    path.unlink()
    assert files_and_whats(checkout) == [("results/quick/published.csv", "exists")]


def test_a_tolerance_and_a_gating_miss(checkout: Path) -> None:
    path = checkout / "baselines/toy/published.yaml"
    tamper(path, "tolerance: 9.0", "tolerance: 12.0")
    assert files_and_whats(checkout) == [("results/quick/published.csv", "tolerance of toy b/plain")]
    tamper(path, "value: 37.0, tolerance: 12.0", "value: 80.0, tolerance: 1.0")
    verdict.write_verdicts(Results.at("quick"))
    assert files_and_whats(checkout) == [("baselines/toy/published.yaml", "b/plain psnr (quick)")]
    tamper(path, "gates: true", "gates: true, cause: other data")
    verdict.write_verdicts(Results.at("quick"))
    assert files_and_whats(checkout) == []


def test_the_leaderboard_follows_from_the_trials(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = pd.DataFrame({"paper": ["toy"], "run": "b", "psnr": [1 / 3]})
    monkeypatch.setattr(check.tables, "leaderboard", lambda results: board)
    path = checkout / "results/quick/leaderboard.csv"
    path.write_text("paper,run,psnr\ntoy,b,0.333333\n")
    assert list(leaderboard_findings(Results.at("quick"))) == []
    path.write_text("paper,run,psnr\ntoy,b,0.4\n")
    assert [one.what for one in leaderboard_findings(Results.at("quick"))] == ["psnr of toy b"]


def test_recorded_parameters_and_sources(checkout: Path) -> None:
    (checkout / "baselines/toy/attack.py").unlink()
    tamper(checkout / "baselines/toy/params.yaml", "lr: 1.0e-3", "lr: 2.0e-3")
    tamper(checkout / "src/leakboard/__init__.py", "ENGINE = ", "ENGINE = 9")
    got = {(one.file, one.found, one.expected) for one in locks.mismatches(checkout)}
    assert got == {
        ("baselines/toy/attack.py", "nothing", hashlib.md5(b"x = 1\n").hexdigest()),
        ("baselines/toy/params.yaml", "plain: lr: 0.002", "plain: lr: 0.001"),
        ("src/leakboard/__init__.py", f"9{leakboard.ENGINE}", str(leakboard.ENGINE)),
    }


def test_stale_lines_are_a_warning_and_no_longer_counted(checkout: Path) -> None:
    tamper(checkout / "baselines/toy/params.yaml", "signed: true", "signed: false")
    warnings = [one for one in check.check(checkout) if one.severity == "warning"]
    assert [one.found for one in warnings] == ["3 stale"] and not check.failed(warnings)
    assert check.failed(check.check(checkout))


def test_a_damaged_file_is_a_finding(checkout: Path) -> None:
    path = checkout / TRIALS
    path.write_text(path.read_text()[:-5])
    assert ("results/quick/papers/toy/b", "is readable") in files_and_whats(checkout)
    path.unlink()
    assert (TRIALS, "exists") in files_and_whats(checkout)


def test_yaml_is_read_as_dvc_reads_it() -> None:
    text = "{on: yes, ten: 010, rate: 1e-3, half: .5, count: 7, flag: true, name: '1e-3', other: -2.5E+3, sha: 12e4f}"
    assert yaml.load(text, Loader=Yaml12) == {
        "on": "yes", "ten": 10, "rate": 0.001, "half": 0.5, "count": 7, "flag": True, "name": "1e-3", "other": -2500.0,
        "sha": "12e4f",
    }  # fmt: skip


def test_no_torch_is_imported() -> None:
    code = "import sys, leakboard.board.check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ}, check=False).returncode == 0
