"""Toy attacks, small questions and small checkouts for the tests of the engine."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from leakboard.config import Benchmark
from leakboard.run import machine
from leakboard.run.observation import observe
from leakboard.run.trial import Job, Outcome, attempt
from leakboard.threat import Seen
from leakboard.victim.secrets import Secret

KNOWS = ("batch_size", "public_data")  # what every question here grants
ROOT = Path(__file__).resolve().parents[1]
QUALITY = ["mse", "psnr", "label_accuracy", "exact", "success_1e-3", "mse_each", "psnr_each"]
QUESTION: dict[str, Any] = {
    "version": 1,
    "question": "Does the toy work?",
    "seed": 7,
    "data": {"name": "digits"},
    "public": {"count": 8},
    "network": {"name": "lenet_sigmoid"},
    "trials": 2,
    "budget": 20,
}
SOURCE = """
import copy
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from leakboard.threat import *


@dataclass(frozen=True)
class Toy:
    path: str = ""

    def reconstruct(self, seen: {kind}, rng: torch.Generator) -> Reconstruction:
{body}
{methods}
"""
NOTHING = "return Reconstruction(torch.empty(0, *seen.shape[1:]))"
GRAY = "return Reconstruction(torch.full(seen.shape, 0.5))"

machine.settle()


def question(sees: str = "gradient", threat: dict[str, Any] | None = None, **more: Any) -> Benchmark:
    """A question on digits; `threat` and `more` say what differs from `QUESTION`, what is known on top of `KNOWS`."""
    threat = threat or {}
    stated = {"sees": sees, **threat, "knows": (*KNOWS, *threat.get("knows", ()))}
    return Benchmark.model_validate({"name": "toy", "scale": "quick", **QUESTION, "threat": stated, **more})


def toy(folder: Path, body: str, kind: str = "Gradient", methods: str = "", name: str = "toy") -> Path:
    """An attack file whose `reconstruct` has this body."""
    path = folder / f"{name}.py"
    parts = {"body": textwrap.dedent(body), "methods": textwrap.dedent(methods)}
    indented = {key: textwrap.indent(text, " " * (8 if key == "body" else 4)) for key, text in parts.items()}
    path.write_text(SOURCE.format(kind=kind, **indented))
    return path


def trial(path: Path, asked: Benchmark, number: int = 0, settings: dict[str, Any] | None = None) -> Outcome:
    return attempt(Job(asked, "toy", "only", path, settings or {}, 1, number))


def observed(asked: Benchmark, number: int = 0) -> tuple[Secret, nn.Module, Seen]:
    """(secret, the victim's network, what is seen of them), without an attack."""
    got = observe(asked, number)
    return got.hidden, got.model, got.seen


def checkout(
    folder: Path, body: str, trials: int = 4, settings: dict[str, Any] | None = None, methods: str = ""
) -> Path:
    """A suite of one question and one paper, `toy`, to run stages in."""
    (folder / "benchmarks").mkdir(parents=True)
    (folder / "baselines" / "toy").mkdir(parents=True)
    about = {name: QUESTION[name] for name in ("question",)}
    common = {key: value for key, value in QUESTION.items() if key not in about} | {"threat": {"knows": list(KNOWS)}}
    scales = {"about": about, "common": common, "quick": {"trials": trials}, "paper": {"trials": trials}}
    (folder / "benchmarks" / "toy_gradient.yaml").write_text(yaml.safe_dump(scales))
    content = {"version": 1, "title": "Toy", "variants": {"only": settings or {}}, "on": {"toy_gradient": {}}}
    (folder / "baselines" / "toy" / "params.yaml").write_text(yaml.safe_dump(content))
    toy(folder / "baselines" / "toy", body, methods=methods, name="attack")
    return folder
