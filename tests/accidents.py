"""What the tests of accidents share: an attack that leaves curves, a signal inside a save, and what `whole` means."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from typer.testing import CliRunner

from leakboard import cli
from leakboard.attack.untouched import sha_of
from leakboard.record import curve_lines
from leakboard.record.aggregate import aggregate
from leakboard.record.results import Results
from leakboard.run import kept
from leakboard.run.stage import Stage, stages

BODY = """
images = torch.rand(seen.shape, generator=rng)
for step in (1, 2, 4):
    seen.snapshot(step, images, 1 / step)
time.sleep({seconds})
return Reconstruction(images)
"""
QUICK = BODY.format(seconds=0)
WORDS = ("reproduce", "toy", "toy_gradient")
# The console with a signal to itself in the middle of writing a file: after so many writes of files so named.
CUT = """
import os, signal
real, seen = os.replace, []
def replace(source, target, **more):
    if str(target).endswith({name!r}):
        seen.append(target)
        if len(seen) == {after}:
            os.kill(os.getpid(), {number})
    return real(source, target, **more)
os.replace = replace
from leakboard.run import opened
opened.SAVE_SECONDS = 0
from leakboard.cli import app
app()
"""

# A runner under nohup, or in the background of a shell, ignores these, and its children would too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def call(*words: str) -> tuple[int, str]:
    """(exit status, what was printed) of the console, in this process."""
    result = CliRunner().invoke(cli.app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def process(*words: str, folder: Path, code: str = "from leakboard.cli import app; app()") -> subprocess.Popen:
    """The console in a process group of its own that listens to interrupts, as in front of a shell."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def while_writing(monkeypatch, name: str, do: Callable[[], None], after: int = 1, always: bool = False) -> None:
    """Do something in the middle of writing the so-manieth file with such a name; `always`: and every further one."""
    real, seen = os.replace, []

    def replace(source, target, **more):
        if str(target).endswith(name):
            seen.append(target)
            if len(seen) == after or (always and len(seen) > after):
                do()
        return real(source, target, **more)

    monkeypatch.setattr("os.replace", replace)


def toy_stage(results: Path) -> Stage:
    return stages(Results.at("quick", results), "toy", None)[0]


def assert_whole(results: Path, trials: int | None = None) -> pd.DataFrame:
    """The lines: each once, with its curve and what it handed in; nothing half written. `trials`: all, and derived."""
    stage = toy_stage(results)
    lines = stage.results.current_lines("toy", "toy_gradient")
    assert not lines.duplicated(["variant", "trial"]).any()
    curves = curve_lines.read(stage.place.curves)
    steps = curves.groupby(["variant", "trial"])["step"].apply(list).to_dict()
    for _, line in lines.iterrows():
        got = kept.kept(stage.reconstructions, line["variant"], line["trial"])
        assert got is not None and sha_of([got.images]) == line["reconstruction_sha"]
        assert steps[line["variant"], line["trial"]] == [1, 2, 4], "the curve of a trial is whole"
    if trials is not None:
        assert lines["trial"].tolist() == list(range(trials))
        assert len(steps) == trials and not list(results.rglob("*.part"))
        assert json.loads((stage.folder / "metrics.json").read_text()) == aggregate(lines)
    return lines


def unlike(one: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    """The columns, those of time and place left out, in which two stores differ."""
    timed = ("seconds", "peak_bytes", "commit", "dirty", "seconds_to_20")
    return [name for name in one if name not in timed and not one[name].equals(other[name])]
