"""Bad inputs, table by table: each ends as one clear line, none as a traceback, a wait, or a silent result.

The tables are in `bad_inputs/`. A case is a call in a small checkout with some of its files damaged; it must end with
exit status 1 or 2 within ten seconds, name the file and what was found there, and write nothing but to `build/`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from bad_inputs import boards, calls, codes, papers, records
from bad_inputs.damages import swap
from bad_inputs.suite import BENCHMARK, PATIENCE, ROOT, B, Case, N, P, T, became, made, prepared, said_to

from leakboard import cli, config

TABLES = {"boards": boards, "papers": papers, "records": records, "calls": calls, "codes": codes}
ALL = {f"{table}: {name}": case for table, module in TABLES.items() for name, case in module.CASES.items()}
WELL = (
    "list", "check", "report", "run toy toy_gradient --workers 0", "reproduce toy --workers 0", "data list",
    "rescore toy", "reproduce --workers 0 --out {outside}/out", "merge results --out {outside}/both",
)  # fmt: skip
ONLY_ROOT = os.geteuid() == 0


def identity(name: str) -> str:
    return re.sub(r"[^\w.:/-]+", "_", name, flags=re.ASCII)[:80]


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return made(tmp_path_factory.mktemp("bad") / "suite")


def said_in(case: Case, base: Path, folder: Path) -> tuple[int, str]:
    with contextlib.chdir(prepared(case, base, folder)):
        said = said_to(case.words.format(outside=folder / "outside"), case.env)
    assert said.fault is None, said
    return said.status, said.text


@pytest.mark.parametrize("words", WELL)
def test_the_checkout_itself_is_sound(words, base, tmp_path):
    """So that what is refused below is refused for its damage."""
    status, said = said_in(Case(words, {}, ()), base, tmp_path)
    assert status == 0, said


@pytest.mark.parametrize("case", [pytest.param(case, id=identity(name)) for name, case in ALL.items()])
def test_a_bad_input_is_one_clear_line(case, base, tmp_path):
    became_, said = became(case, base, tmp_path)
    assert became_ == "clear", f"{became_}: {said}"


HARMLESS = {
    "a mark of the byte order": {B: b"\xef\xbb\xbf" + BENCHMARK.encode()},
    "line ends of Windows": {B: BENCHMARK.replace("\n", "\r\n").encode(), T: lambda path: _with_returns(path)},
    "tabs and comments": {B: BENCHMARK.replace("seed: 7", "seed: 7\t# seven \té")},
    "other quotes": {B: BENCHMARK.replace("Does the toy work?", "'It''s a < b | c [d](e) & so on?'")},
    "a hidden file": {"benchmarks/.#toy_gradient.yaml": "not read", "baselines/.cache/x": ""},
}


def _with_returns(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_only_odd_is_read(name, base, tmp_path):
    for number, words in enumerate(("list", "report")):
        folder = tmp_path / str(number)
        folder.mkdir()
        status, said = said_in(Case(words, HARMLESS[name], ()), base, folder)
        assert status == 0, said


# A dozen of all kinds in a process of its own, as they are typed.
IN_A_PROCESS = (
    "boards: seed: 7 name: ../../evil name", "boards: trials: true trials True", "papers: params that are a bomb",
    "papers: numbers that are a pipe", "papers: a benchmark that is deep", "records: trials NUL bytes",
    "records: curve binary", "records: speed zeros", "records: metrics deep", "calls: leakboard reproduce ''",
    "calls: more trials than images, tried", "codes: an attack that is exits with 0",
    "codes: a network that is exits with 0",
)  # fmt: skip
CASE_OF = {" ".join(name.split()): case for name, case in ALL.items()}


@pytest.mark.parametrize("name", IN_A_PROCESS)
def test_a_bad_input_in_a_process_of_its_own(name, base, tmp_path):
    case = CASE_OF[name]
    suite = prepared(case, base, tmp_path)
    call = [sys.executable, "-c", "from leakboard.cli import app; app()", *shlex.split(case.words)]
    env = {**os.environ, "COLUMNS": "200"}
    end = subprocess.run(call, cwd=suite, capture_output=True, text=True, timeout=6 * PATIENCE, env=env)
    said = end.stdout + end.stderr
    assert end.returncode in (1, 2) and "Traceback" not in said, said
    assert "error" in said and said.count("\n") < 20, said


@pytest.mark.skipif(ONLY_ROOT, reason="nothing is unreadable to root")
@pytest.mark.parametrize("file", [B, P, N, T])
def test_what_may_not_be_read_is_named(file, base, tmp_path):
    status, said = said_in(Case("report", {file: lambda path: path.chmod(0)}, ()), base, tmp_path)
    assert status == 2 and Path(file).name in said and "ermission" in said, said


# ---------------------------------------------------------------------------------------------------------------------
# Faults of our own.


def broken(*_: object) -> list[str]:
    private = "a local that nobody shall see"
    raise ZeroDivisionError(f"[red]{len(private)}[/red]")


@pytest.mark.parametrize("words", ["list", "check", "report", "reproduce", "run toy toy_gradient"])
def test_a_fault_of_our_own_is_one_line_too(words, base, monkeypatch):
    for module in (config, config.files, cli.config, sys.modules["leakboard.console"]):
        monkeypatch.setattr(module, "paper_names", broken)
    monkeypatch.chdir(base)
    said = said_to(words, {})
    wanted = "error ZeroDivisionError: [red]29[/red] (internal; run again with --traceback)"
    if words == "check":  # there it is a finding
        assert said.status == 2 or "ZeroDivisionError" in said.text
        return
    assert said.status == 2 and wanted in said.text.splitlines(), said.text


@pytest.mark.parametrize("words", ["--traceback list", "list --traceback"])
def test_the_traceback_is_there_for_the_asking(words, base, monkeypatch):
    monkeypatch.setattr(cli.config, "paper_names", broken)
    monkeypatch.chdir(base)
    said = said_to(words, {})
    assert said.status == 2 and "Traceback (most recent call last)" in said.text and "in broken" in said.text
    assert "a local that nobody shall see" not in said.text and "run again" not in said.text
    assert "error ZeroDivisionError: [red]29[/red] (internal)" in said.text.splitlines()


def test_a_traceback_can_be_had_of_a_bad_input_too(base, tmp_path):
    case = Case("--traceback list", {B: swap("trials: 2", "trials: 0")}, ())
    status, said = said_in(case, base, tmp_path)
    assert status == 2 and "Traceback" in said and "trials: found 0" in said
    assert said_in(Case("--traceback list", {}, ()), base, _new(tmp_path))[0] == 0


def _new(folder: Path) -> Path:
    (folder / "new").mkdir()
    return folder / "new"


def test_the_corpus_is_large():
    assert len(ALL) >= 250 and (ROOT / "tests" / "bad_inputs").is_dir()
