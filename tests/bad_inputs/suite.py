"""A small checkout with results, ways to damage its files, and what the console then says: the bench of bad inputs."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from bad_inputs.damages import Damage
from typer.testing import CliRunner

from leakboard import ENGINE, cli

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 40.0  # seconds for one call, on a machine that does other things too
# Files of the checkout, by one letter.
B, P, N, A = (
    "benchmarks/toy_gradient.yaml", "baselines/toy/params.yaml", "baselines/toy/published.yaml",
    "baselines/toy/attack.py",
)  # fmt: skip
HERE = "results/quick/papers/toy/toy_gradient"
T, C, M, G = (f"{HERE}/{name}" for name in ("trials.csv", "curve.csv", "metrics.json", "grid.png"))
S, V, L, D = "results/quick/speed.csv", "results/quick/published.csv", "baselines/toy/dvc.lock", "datasets/sources.toml"
OUT = "{outside}/out"

BENCHMARK = """\
about:
  question: Does the toy work?
  metrics: [mse, psnr]
common:
  version: 1
  seed: 7
  data: {name: digits}
  public: {count: 8}
  network: {name: lenet_sigmoid}
  threat: {knows: [batch_size, public_data]}
  batch: 1
quick:
  trials: 2
  budget: 20
paper:
  trials: 2
  budget: 20
"""
PARAMS = """\
version: 1
title: The toy paper
variants:
  only: {level: 0.5}
on:
  toy_gradient: {}
"""
PUBLISHED = """\
paper: The toy paper
citation: Nobody, 2020
numbers:
  - run: toy_gradient
    variant: only
    metric: mse
    value: 0.2
    tolerance: 0.3
    where: Table 1
    provenance: verified
    gates: true
    scale: quick
claims:
  - says: The toy is not sharp
    left: {run: toy_gradient, variant: only}
    relation: "<"
    value: 90
    metric: psnr
    where: Table 1
    provenance: verified
    scale: quick
    margin: 0.0
"""
ATTACK = '''\
"""Grey images."""

from dataclasses import dataclass

import torch

from leakboard.threat import Gradient, Reconstruction


@dataclass(frozen=True)
class Toy:
    level: float = 0.5

    def reconstruct(self, seen: Gradient, rng: torch.Generator) -> Reconstruction:
        images = torch.full(seen.shape, self.level)
        seen.snapshot(1, images, 0.5)
        seen.snapshot(2, images * 0.9, 0.25)
        return Reconstruction(images)
'''
SPEED = """\
benchmark,attack,device,execution,stacked,seconds_per_step,steps_per_second,cpu_seconds_per_step,ratio_to_loop,\
ratio_to_floor,warm_up_seconds,peak_bytes,chosen,device_name,torch,threads,commit
toy_gradient,toy,cpu,loop,1,0.002,500,0.002,1,1.5,0.006,800000000,true,a processor,2.12,1,abc
toy_gradient,toy,cpu,stacked,4,0.004,250,0.004,0.5,3,0.006,800000000,false,a processor,2.12,1,abc
"""


def made(suite: Path) -> Path:
    """The checkout with the results of its two trials, its verdicts and boards, and a lock file."""
    texts = {B: BENCHMARK, P: PARAMS, N: PUBLISHED, A: ATTACK, S: SPEED, D: (ROOT / D).read_text()}
    texts["src/leakboard/__init__.py"] = f"ENGINE = {ENGINE}\n"
    for name, text in texts.items():
        (suite / name).parent.mkdir(parents=True, exist_ok=True)
        (suite / name).write_text(text)
    with contextlib.chdir(suite):
        for words in ("reproduce toy --workers 0", "report"):
            said = said_to(words, {})
            assert said.status == 0, said.text
    entry = {"path": A, "hash": "md5", "md5": hashlib.md5(ATTACK.encode()).hexdigest(), "size": len(ATTACK)}
    engine = {"src/leakboard/__init__.py": {"ENGINE": ENGINE}}
    stage = {"cmd": "leakboard reproduce toy toy_gradient", "deps": [entry], "params": engine, "outs": []}
    (suite / L).write_text(yaml.safe_dump({"schema": "2.0", "stages": {"toy@quick-toy_gradient": stage}}))
    return suite


# ---------------------------------------------------------------------------------------------------------------------
# A case, and what becomes of it.


@dataclass(frozen=True)
class Case:
    """words: the call, in which {outside} is a folder beside the checkout. files: {path in the checkout: its damage}.

    says: what the message must name. env: variables of the call.
    """

    words: str
    files: Mapping[str, Damage]
    says: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """What a call came to. fault: an exception that the console let through."""

    status: int
    text: str
    fault: BaseException | None = None


class Hang(BaseException):
    """A call took longer than `PATIENCE`."""


@contextlib.contextmanager
def _patience() -> Iterator[list[bool]]:
    """Hang after so many seconds, by a signal of its own: attacks are ended by SIGALRM. Yields whether it came."""
    late: list[bool] = []

    def end(*_: object) -> None:
        late.append(True)
        raise Hang

    before, main = signal.signal(signal.SIGUSR1, end), threading.get_ident()
    timer = threading.Timer(PATIENCE, lambda: signal.pthread_kill(main, signal.SIGUSR1))
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR1, before)


def said_to(words: str, env: Mapping[str, str]) -> Said:
    """The console's answer in this process, on a wide screen."""
    width, cli.screen._width = cli.screen._width, 2000
    try:
        with _patience() as late:
            end = CliRunner().invoke(cli.app, shlex.split(words), env=dict(env))
    except Hang:
        return Said(-1, "", Hang())
    finally:
        cli.screen._width = width
    if late:
        return Said(-1, end.output, Hang())
    fault = None if isinstance(end.exception, SystemExit) else end.exception
    return Said(end.exit_code, end.output, fault)


def prepared(case: Case, base: Path, folder: Path) -> Path:
    """A copy of the checkout in `folder`, with the case's damage in it."""
    suite = folder / "suite"
    shutil.copytree(base, suite, symlinks=True)
    (folder / "outside").mkdir()
    for name, damage in case.files.items():
        path = Path(name.format(outside=folder / "outside")) if "{" in name else suite / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(damage):
            damage(path)
        else:
            path.write_bytes(damage.encode() if isinstance(damage, str) else damage)
    return suite


def kept(folder: Path) -> dict[str, str]:
    """{path: hash} of all that a refused call must leave as it was: everything but the checkout's `build/`."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (
            not name.startswith("suite/build")
            and path.suffix != ".lock"
            and path.is_file()
            and path.resolve() != Path("/dev/zero")
        ):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def became(case: Case, base: Path, folder: Path) -> tuple[str, str]:
    """(clear, unclear, traceback, silent, hang or written; what was said) of a case."""
    suite = prepared(case, base, folder)
    before = kept(folder)
    with contextlib.chdir(suite):
        said = said_to(case.words.format(outside=folder / "outside"), case.env)
    if isinstance(said.fault, Hang):
        return "hang", ""
    if said.fault is not None or "Traceback" in said.text:
        return "traceback", f"{said.text}\n{said.fault!r}"
    if said.status == 0:
        return "silent", said.text
    lacking = [word for word in case.says if word not in said.text]
    if said.status not in (1, 2) or lacking or "internal" in said.text or said.text.count("\n  ") > 2:
        return "unclear", f"status {said.status}, lacks {lacking}: {said.text}"
    if kept(folder) != before:
        return "written", f"{sorted(set(kept(folder).items()) ^ set(before.items()))}\n{said.text}"
    return "clear", said.text
