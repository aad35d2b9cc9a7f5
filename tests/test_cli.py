"""The console: light to start, plain about errors, and one file away from a row of a new attack."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from toys import GRAY, NOTHING, ROOT, checkout, toy
from typer.testing import CliRunner

from leakboard import cli

HEAVY = ("torch", "numpy", "pandas", "scipy", "matplotlib", "torchvision", "skimage", "sklearn", "dvc")
RUN = "lenet_mnist_gradient"
ATTACK = """
from dataclasses import dataclass

import torch

from leakboard.attack.matching import Matching, squared_distance
from leakboard.threat import Gradient, Reconstruction


@dataclass(frozen=True)
class Short:
    rate: float = 0.1

    def reconstruct(self, seen: Gradient, rng: torch.Generator) -> Reconstruction:
        matching, labels = Matching(seen, squared_distance), torch.zeros(1, dtype=torch.long)
        images = torch.rand(seen.shape, generator=rng, requires_grad=True)
        adam = torch.optim.Adam([images], self.rate)
        for step in range(1, 9):
            cost, (images.grad,) = matching(images, labels, [images])
            adam.step()
            seen.snapshot(step, images.detach(), cost)
        return Reconstruction(images.detach(), labels)
""".lstrip()


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(cli.screen, "_width", 200)


def call(*words: str) -> tuple[int, str]:
    """(exit status, what was printed) of the console, in this process."""
    result = CliRunner().invoke(cli.app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_help_imports_nothing_heavy():
    """In a process of its own, since the tests themselves have imported it all."""
    code = (
        "import sys; from leakboard.cli import app\n"
        "for words in (['--help'], ['run', '--help']):\n"
        "    try: app(words)\n"
        "    except SystemExit as end: assert not end.code, end.code\n"
        f"print('HEAVY', [name for name in {HEAVY} if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "HEAVY []" in said and "reproduce" in said and "--trials" in said


def test_the_console_script_is_installed():
    script = Path(sys.executable).parent / "leakboard"
    said = subprocess.run([script, "list"], capture_output=True, text=True, cwd=ROOT)
    assert said.returncode == 0 and "controls" in said.stdout and "lenet_mnist" in said.stdout


# words -> what the message must name
WRONG = {
    "paper": (("reproduce", "nobody"), ("nobody", "controls", "dlg", "idlg", "ig")),
    "attack": (("run", "nobody", RUN), ("nobody", "controls", "dlg")),
    "file": (("run", "no/such/file.py", RUN), ("no/such/file.py", "dlg")),
    "benchmark": (("run", "dlg", "nothing"), ("nothing", RUN)),
    "benchmark of a paper": (("reproduce", "dlg", "nothing"), ("nothing", RUN)),
    "victims": (("reproduce", "victims", RUN), (RUN, "no victim to train")),
    "scale of a run": (("run", "dlg", RUN, "--scale", "huge"), ("huge", "quick", "paper")),
    "scale": (("reproduce", "dlg", RUN, "--scale", "huge"), ("huge", "quick", "paper")),
    "scale of a report": (("report", "--scale", "huge"), ("huge", "quick", "paper")),
    "device": (("run", "dlg", RUN, "--device", "abacus"), ("abacus", "cpu", "cuda")),
    "trials": (("run", "dlg", RUN, "--trials", "many"), ("many", "FIRST:LAST")),
    "half a range": (("run", "dlg", RUN, "--trials", "3:"), ("3:", "FIRST:LAST")),
    "no trials": (("run", "dlg", RUN, "--trials", "0"), ("0", "FIRST:LAST")),
    "backward": (("reproduce", "dlg", RUN, "--trials", "5:2"), ("5:2", "FIRST:LAST")),
    "negative": (("run", "dlg", RUN, "--trials", "-2:2"), ("-2:2", "FIRST:LAST")),
    "no attack": (("run", "src/leakboard/rng.py", RUN), ("rng.py", "expected one")),
    "data": (("data", "verify", "nothing"), ("nothing", "digits", "mnist")),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_end_with_2_and_name_what_exists(name, tmp_path):
    words, named = WRONG[name]
    more = ("--out", str(tmp_path)) if words[0] == "reproduce" else ()
    status, said = call(*words, *more)
    assert status == 2, said
    assert [word for word in named if word not in said] == [], said
    assert "Traceback" not in said and not list(tmp_path.rglob("trials.csv"))


@pytest.mark.parametrize("words", [("run", "dlg", RUN), ("reproduce", "dlg", RUN)], ids=["run", "reproduce"])
def test_an_absent_cuda_is_named(words, monkeypatch, tmp_path):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    more = ("--out", str(tmp_path)) if words[0] == "reproduce" else ()
    status, said = call(*words, "--device", "cuda", *more)
    assert status == 2 and "cuda" in said and "cpu" in said


def test_outside_a_checkout_the_message_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, said = call("list")
    assert status == 2 and "no folder upwards holds benchmarks/ and baselines/" in said


@pytest.mark.parametrize("trials", ["100000:100001", "100000", "7:9"])
def test_more_trials_than_there_are_is_a_message(trials):
    status, said = call("run", "controls", RUN, "--trials", trials, "--workers", "0")
    assert status == 2 and "8 trials at quick scale" in said


def shown_row(said: str, name: str) -> str:
    rows = [line for line in said.splitlines() if name in line and "pictures" not in line]
    assert len(rows) >= 1, said
    return rows[0]


def test_a_file_is_one_command_away_from_its_row(tmp_path):
    """The committed rivals stand around it; the pictures are where the last line says."""
    path = tmp_path / "short_toy.py"
    path.write_text(ATTACK)
    assert len(ATTACK.splitlines()) <= 25
    status, said = call("run", str(path), RUN, "--trials", "2", "--workers", "0")
    assert status == 0, said
    assert re.search(r"\b2\b", shown_row(said, "short_toy"))
    pictures = Path(said.split("pictures:")[1].strip())
    assert pictures.is_file() and pictures.parent == ROOT / "build" / "runs" / "short_toy" / "quick" / RUN


def test_reproduce_says_what_it_did_and_does_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(checkout(tmp_path / "suite", GRAY, trials=2))
    words = ("reproduce", "toy", "--workers", "0", "--out", str(tmp_path / "out"))
    assert "2 trials run, 1 stages up to date" in call(*words)[1]
    assert "0 trials run" in call(*words)[1]
    assert "1 trials run" in call(*words, "--fresh", "--trials", "1:2")[1]


def test_shares_of_two_machines_merge_into_the_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(checkout(tmp_path / "suite", "return Reconstruction(torch.rand(seen.shape, generator=rng))"))
    words = ("reproduce", "toy", "--workers", "0")
    for share, trials in (("one", "0:2"), ("two", "1:4")):
        assert call(*words, "--trials", trials, "--out", str(tmp_path / share))[0] == 0
    assert call(*words, "--out", str(tmp_path / "whole"))[0] == 0
    status, said = call("merge", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "both"))
    assert status == 0 and "merged quick toy toy_gradient" in said
    both, whole = (tmp_path / name / "quick" / "papers" / "toy" / "toy_gradient" for name in ("both", "whole"))
    for name in ("metrics.json", "grid.png"):
        assert (both / name).read_bytes() == (whole / name).read_bytes(), name
    assert len((both / "trials.csv").read_text().splitlines()) == 5
    assert "0 trials run" in call(*words, "--out", str(tmp_path / "both"))[1]
    status, said = call("rescore", "toy", "--out", str(tmp_path / "both"))
    assert status == 0 and "4 trials judged again; of 0 no reconstruction is here" in said
    status, said = call("merge", str(tmp_path / "nowhere"))
    assert status == 2 and "no results of any paper in" in said


@pytest.mark.parametrize(
    ("body", "expected"), [(NOTHING, 0), ('raise RuntimeError("rude")', 1)], ids=["nothing", "rude"]
)
def test_an_attack_that_fails_still_gets_its_row(body, expected, tmp_path):
    path = toy(tmp_path, body, name="failing_toy")
    status, said = call("run", str(path), RUN, "--trials", "1", "--workers", "0")
    assert status == expected, said
    shown_row(said, "failing_toy / default" if expected else "failing_toy")
    assert ("no trial of 1 succeeded; the first: RuntimeError: rude" in said) == bool(expected)


def test_readme_attack(tmp_path):
    """The attack that README shows is whole, short and works as printed."""
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("README.md is not written yet")
    blocks = re.findall(r"^```python\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)
    source = next((block for block in blocks if "def reconstruct" in block), None)
    assert source is not None, "README shows no attack"
    assert len(source.splitlines()) <= 25
    path = tmp_path / "readme_attack.py"
    path.write_text(source)
    status, said = call("run", str(path), RUN, "--trials", "2", "--workers", "0")
    assert status == 0, said
    lines = (ROOT / "build" / "runs" / "readme_attack" / "quick" / RUN / "trials.csv").read_text().splitlines()
    assert len(lines) == 3 and all(",ok," in line for line in lines[1:]), lines
    shown_row(said, "readme_attack")
