"""`leakboard federate`: what it trains, measures and draws, and that a killed training goes on where it stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import ROOT, checkout
from typer.testing import CliRunner

from leakboard import cli
from leakboard.board import federations
from leakboard.config import Images
from leakboard.recipes import federation as kept

SMALL = ("--data", "digits", "--images", "200")


@pytest.fixture(autouse=True)
def suite(tmp_path, monkeypatch) -> Path:
    folder = checkout(tmp_path / "suite", "")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(cli.screen, "_width", 200)
    return folder


def call(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["federate", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def rounds(suite: Path) -> list[Path]:
    return sorted((suite / "build" / "federations").glob("*/*.safetensors"))


def size(path: Path) -> tuple[int, int]:
    """Width and height in a PNG's header; it is one."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


@pytest.mark.parametrize(
    ("name", "wanted"), [("quick", (3, 3, 2)), ("standard", (5, 10, 5)), ("extensive", (10, 20, 10))]
)
def test_presets_are_what_is_told_of_them(name, wanted):
    spec = kept.preset(name, Images(name="digits"), {}, 0).federation
    assert (spec.clients, spec.rounds, spec.epochs) == wanted
    assert (spec.batch, spec.learning_rate, spec.partition) == (64, 0.01, "iid")


def test_a_federation_is_trained_measured_and_drawn(suite):
    status, said = call("--data", "digits", "--preset", "standard", "--out", "here")
    assert status == 0 and "standard federation on digits: 10 rounds" in said, said
    assert [path.stem for path in rounds(suite)] == [f"{number:05d}" for number in range(10)]
    frame = pd.read_csv("here/rounds.csv")
    assert frame["round"].tolist() == list(range(11))
    assert frame["accuracy"][8:].mean() > frame["accuracy"][1:4].mean() + 0.1 and frame["loss"][10] < frame["loss"][0]
    record = json.loads(Path("here/record.json").read_text())
    assert record["share"] == 1 and len(record["sizes"]) == 5 and record["missing_classes"] == []
    assert min(size(suite / "here" / name)[0] for name in ("curves.png", "partition.png")) > 500


@pytest.mark.parametrize(
    ("words", "partition"),
    [((), "iid"), (("--iid",), "iid"), (("--classes", "4"), "classes"), (("--dirichlet", "0.3"), "dirichlet")],
)
def test_images_are_spread_as_is_asked(words, partition, suite):
    assert call(*SMALL, "--out", "here", *words)[0] == 0
    record = json.loads(Path("here/record.json").read_text())
    assert record["recipe_said"]["federation"].get("partition", "iid") == partition
    assert sum(record["sizes"]) == 200 and record["share"] == 1
    counts = np.array(kept.holdings(kept.preset("quick", Images(name="digits", count=200), _keys(words), 0)))
    assert counts.shape == (3, 10) and counts.sum(1).tolist() == record["sizes"]
    held = (counts > 0).sum(1).tolist()
    assert held == [4, 4, 4] if partition == "classes" else max(held) > 4
    assert partition != "dirichlet" or np.ptp(counts, axis=0).max() > 10, "uneven"


def _keys(words: tuple[str, ...]) -> dict:
    named = {"--classes": ("classes", "classes_per_client", int), "--dirichlet": ("dirichlet", "beta", float)}
    if not words or words[0] not in named:
        return {}
    partition, key, kind = named[words[0]]
    return {"partition": partition, key: kind(words[1])}


def test_what_nobody_holds_is_said(tmp_path, monkeypatch):
    from leakboard.run import federate

    assert federate.left_out({"share": 1, "missing_classes": []}) == ""
    said = federate.left_out({"share": 0.8, "missing_classes": [3, 4]})
    assert said == "20% of the images are nobody's; of classes 3, 4 all"
    federations.partition(tmp_path / "plain.png", [[1, 0], [0, 0]], "", "two clients")
    federations.partition(tmp_path / "said.png", [[1, 0], [0, 0]], said, "two clients")
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "said.png").read_bytes()
    federations.partition(tmp_path / "tall.png", [[1, 0]] * 20, "", "twenty clients")
    assert size(tmp_path / "tall.png")[1] > size(tmp_path / "plain.png")[1], "a row a client"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--iid", "--classes", "2"), "--iid and --classes: images are spread in one way, expected one of them"),
        (("--preset", "huge"), "no preset 'huge'; there are: quick, standard, extensive"),
        (("--classes", "1"), "cannot hold all 10 classes"),
        (("--dirichlet", "-1"), "--dirichlet -1.0: expected a number from 0.001"),
        (("--data", "nothing"), "nothing"),
        (("--classes", "0"), "0 is not in the range"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(words, message, suite):
    status, said = call(*SMALL, *words)
    assert status == 2 and message in " ".join(said.split()) and "Traceback" not in said, said
    assert not rounds(suite)


def start(*words: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", "from leakboard.cli import app; app()", "federate", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def test_a_killed_federation_goes_on_and_has_lost_a_round_at_most(suite):
    """Killed outright while it trains; what was there stays as it was, and the end is that of an unbroken training."""
    words = (*SMALL, "--preset", "standard")
    killed = start(*words)
    deadline = time.monotonic() + 120
    while len(rounds(suite)) < 2 and time.monotonic() < deadline and killed.poll() is None:
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    there = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in rounds(suite)}
    assert 2 <= len(there) < 10, "killed on the way"
    again, said = call(*words)
    assert again == 0 and "10 rounds" in said
    lived = rounds(suite)
    assert len(lived) == 10 and not list(suite.rglob("*.part"))
    for path in lived[: len(there)]:
        assert (path.stat().st_mtime_ns, path.read_bytes()) == there[path.name], (
            "a finished round is never trained again"
        )
    ends = lived[-1].read_bytes()
    for path in lived:
        path.unlink()
    assert call(*words)[0] == 0 and rounds(suite)[-1].read_bytes() == ends
