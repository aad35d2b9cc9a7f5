"""`leakboard check` on what is missing, cut down, left over or unreadable; each finding says what mends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from check_toys import TRIALS, derive, small_checkout, tamper

from leakboard.board import check
from leakboard.board.findings import Finding
from leakboard.record import locks, trial_lines

RESULTS = "results/quick/papers/toy/b"
LOCK, STAGES = "baselines/toy/dvc.lock", "baselines/toy/dvc.yaml"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, "_leaderboard_findings", lambda results: iter(()))
    small_checkout(tmp_path)
    return tmp_path


def only(root: Path) -> Finding:
    (finding,) = check.check(root)
    return finding


def without(root: Path, *trials: int) -> None:
    """The store without these trials, and all that follows from it honestly derived."""
    lines = trial_lines.read(root / TRIALS)
    trial_lines.write(root / TRIALS, lines[~lines["trial"].isin(trials)])
    derive(root)


def test_a_row_that_gates_and_lacks_a_trial_is_an_error(checkout: Path) -> None:
    without(checkout, 1)
    got = only(checkout)
    assert (got.severity, got.file, got.what) == ("error", TRIALS, "trials of plain, which gates")
    assert got.found == "2 of 3, without 1" and got.mend == "`leakboard reproduce toy b --scale quick`"


def test_a_row_that_does_not_gate_and_lacks_trials_is_a_warning(checkout: Path) -> None:
    tamper(checkout / "baselines/toy/published.yaml", "gates: true, ", "")
    tamper(
        checkout / "baselines/toy/published.yaml",
        "provenance: verified, scale: [",
        "provenance: verified, gates: false, scale: [",
    )
    without(checkout, 0, 2)
    got = only(checkout)
    assert (got.severity, got.what, got.found) == ("warning", "trials of plain", "1 of 3, without 0, 2")


def test_a_row_and_a_board_without_any_line_lack_all(checkout: Path) -> None:
    tamper(checkout / "baselines/toy/params.yaml", "variants: {", "variants: {other: {}, ")
    tamper(checkout / "baselines/toy/params.yaml", "on: {b: {}}", "on: {b: {}, c: {}}")
    (checkout / "benchmarks/c.yaml").write_bytes((checkout / "benchmarks/b.yaml").read_bytes())
    found = {(one.file, one.what): one for one in check.check(checkout) if one.what.startswith("trials of")}
    elsewhere = "results/quick/papers/toy/c/trials.csv"
    assert set(found) == {(TRIALS, "trials of other"), *((elsewhere, f"trials of {row}") for row in ("other", "plain"))}
    assert {one.found for one in found.values()} == {"0 of 3, without 0, 1, 2"}


def test_trials_of_the_kind_of_device_that_has_most_are_counted(checkout: Path) -> None:
    lines = trial_lines.read(checkout / TRIALS)
    more = lines[:1].assign(device_kind="cuda")
    trial_lines.write(checkout / TRIALS, trial_lines.merge(lines, more))
    derive(checkout)
    assert check.check(checkout) == []


def test_lines_of_development_victims_are_in_no_store(checkout: Path) -> None:
    lines = trial_lines.read(checkout / TRIALS)
    trial_lines.write(checkout / TRIALS, trial_lines.merge(lines, lines[:1].assign(trial=3, victim_sha="v3")))
    derive(checkout)
    got = only(checkout)
    assert (got.severity, got.what, got.found) == ("error", "1 lines are of no board", "plain trial 3 (cpu, loop)")
    assert got.expected == "trials 0 to 2" and "--fresh" in got.mend


def test_lines_of_a_changed_tree_are_counted(checkout: Path) -> None:
    lines = trial_lines.read(checkout / TRIALS)
    lines.loc[:1, "dirty"] = True
    trial_lines.write(checkout / TRIALS, lines)
    derive(checkout)
    got = only(checkout)
    assert (got.severity, got.file, got.found) == ("warning", TRIALS, "2 from a changed tree")
    assert got.mend == "commit, then `leakboard reproduce toy b --scale quick --fresh`"


LEFT_OVER = {
    "paper": "results/quick/papers/nobody",
    "benchmark": "results/quick/papers/toy/nowhere",
    "victim": "results/quick/papers/victims/b",  # draws a fresh network for every trial
    "file beside a store": f"{RESULTS}/trials.csv.orig",
    "killed save": f"{RESULTS}/.trials.csv.abc.part",
    "file of a scale": "results/quick/old.csv",
    "file above": "results/notes.txt",
}


@pytest.mark.parametrize("kind", LEFT_OVER)
def test_what_belongs_to_nobody_is_a_warning(kind: str, checkout: Path) -> None:
    path = checkout / LEFT_OVER[kind]
    path.parent.mkdir(exist_ok=True)
    path.write_text("?") if path.suffix else path.mkdir()
    got = only(checkout)
    assert (got.severity, got.file) == ("warning", LEFT_OVER[kind]) and f"rm -r {LEFT_OVER[kind]}" in got.mend


CUT: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "empty": lambda lock: lock.write_text(""),
    "no stages": lambda lock: lock.write_text("schema: '2.0'\nstages: {}\n"),
    "no results": lambda lock: lock.write_text(lock.read_text().replace("    outs:", "    others:")),
    "another stage": lambda lock: lock.write_text(yaml.safe_dump({"stages": {"toy@quick-c": {"cmd": "x"}}})),
}


@pytest.mark.parametrize("how", CUT)
def test_a_lock_that_lacks_a_stage(how: str, checkout: Path) -> None:
    CUT[how](checkout / LOCK)
    (got,) = [one for one in check.check(checkout) if one.what == f"records every stage of {STAGES}"]
    assert (got.severity, got.file) == ("error", LOCK)
    assert "no toy@quick-b" in got.found and f"dvc commit -f -q '{STAGES}:toy@quick-b'" in got.mend


def test_the_stages_are_those_that_dvc_makes(checkout: Path) -> None:
    """Of every dvc.yaml here: what its lock, which dvc wrote, records."""
    (checkout / "dvc.yaml").write_text("stages: {one: {cmd: x}, two: {matrix: {a: [1, x], b: [y]}, cmd: x}}")
    assert locks.stage_names(checkout / "dvc.yaml") == ["one", "two@1-y", "two@x-y"]
    here = Path(__file__).resolve().parents[1]
    files = [here / "dvc.yaml", *(here / "baselines").glob("*/dvc.yaml"), here / "benchmarks/dvc.yaml"]
    for file in files:
        recorded = yaml.safe_load(file.with_suffix(".lock").read_text())["stages"]
        assert set(locks.stage_names(file)) == set(recorded), file


NOT_TEXT = b"\xff\xfe\x00 not text"
BAD = {
    "store": (TRIALS, NOT_TEXT),
    "store without a line": (TRIALS, b""),
    "metrics": (f"{RESULTS}/metrics.json", NOT_TEXT),
    "metrics that are a list": (f"{RESULTS}/metrics.json", b"[1, 2]"),
    "deep metrics": (f"{RESULTS}/metrics.json", b"[" * 100_000),
    "timing": (f"{RESULTS}/timing.json", b"{"),
    "verdicts": ("results/quick/published.csv", NOT_TEXT),
    "verdicts with a quote": ("results/quick/published.csv", b'paper,"run\n'),
    "lock": (LOCK, NOT_TEXT),
    "lock of a list": (LOCK, b"stages: [a]"),
    "lock of a word": (LOCK, b"stages: {toy@quick-b: word}"),
    "lock of odd entries": (LOCK, b"stages: {toy@quick-b: {deps: [{md5: 1}], params: {a: [1]}}}"),
    "lock that is no YAML": (LOCK, b"{"),
    "stages": (STAGES, b"stages: {toy: [1]}"),
    "stages of nothing": (STAGES, b"stages: {toy: {matrix: {run: '${none}'}}}"),
    "params": ("baselines/toy/params.yaml", NOT_TEXT),
    "params of a list": ("baselines/toy/params.yaml", b"[1]"),
    "published": ("baselines/toy/published.yaml", NOT_TEXT),
    "published of a word": ("baselines/toy/published.yaml", b"word"),
    "attack": ("baselines/toy/attack.py", b"def ("),
    "attack of bytes": ("baselines/toy/attack.py", NOT_TEXT),
    "benchmark": ("benchmarks/b.yaml", NOT_TEXT),
    "benchmark without a scale": ("benchmarks/b.yaml", b"common: {}"),
    "engine": ("src/leakboard/__init__.py", b"ENGINE = ("),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_content_is_a_finding_and_never_a_traceback(what: str, checkout: Path) -> None:
    name, content = BAD[what]
    (checkout / name).write_bytes(content)
    counts, found = check.checked(checkout)
    errors = [one for one in found if one.severity == "error"]
    assert errors and counts[0].startswith("quick: ") and counts[1] == "paper: no results"
    where = (name, RESULTS) if name == TRIALS else (name,)
    shown = [" ".join(row) for row in check.rows(errors)]
    assert any(place in row for place in where for row in shown), shown
    assert all(one.mend for one in errors), errors


def test_every_finding_is_one_row_that_ends_with_what_mends_it() -> None:
    warning = Finding("a", "b", "c", "d", "warning")
    error = Finding("a", "b", "c", "d", mend="`do`")
    assert check.rows([warning, error]) == [("error", "a", "b", "c", "d; `do`"), ("warning", "a", "b", "c", "d")]
    assert check.sentences([error]) == ["error a: b: found c; expected d; `do`"]
    assert check.failed([warning, error]) and not check.failed([warning])
