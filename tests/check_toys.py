"""A small checkout of one paper on one benchmark that `leakboard check` has nothing to say about."""

from __future__ import annotations

import copy
import hashlib
import math
from pathlib import Path

import yaml

import leakboard
from leakboard import config
from leakboard.board import verdict
from leakboard.record import aggregate, trial_lines
from leakboard.record.results import Results

BENCHMARK = {
    "about": {"question": "?"},
    "common": {"version": 1, "seed": 0, "data": {"name": "d"}, "network": {"name": "mlp"}, "budget": 1},
    "quick": {"trials": 3},
    "paper": {"trials": 3},
}  # fmt: skip
PARAMS = """{version: 1, title: t, on: {b: {}}, variants: {plain: {lr: 1.0e-3, signed: true}}}"""
PUBLISHED = """
paper: toy
citation: c
numbers:
- {run: b, variant: plain, metric: psnr, value: 37.0, tolerance: 9.0, where: t1, provenance: verified, gates: true, scale: quick}
claims:
- {says: sharp, metric: psnr, left: {run: b, variant: plain}, relation: '>', value: 10.0, where: t1, provenance: verified, scale: [quick]}
"""  # noqa: E501
STAGES = """
vars: [params.yaml]
stages:
  toy:
    matrix: {scale: [quick], run: "${on}"}
    cmd: leakboard reproduce toy ${item.run} --scale ${item.scale}
"""
TRIALS = "results/quick/papers/toy/b/trials.csv"


def line(trial: int, mse_each: list[float], key: trial_lines.Key) -> dict[str, object]:
    psnr_each = [min(-10 * math.log10(mse), 100.0) for mse in mse_each]

    def share(values: list[bool]) -> float:
        return sum(values) / len(values)

    return {
        "attack": "toy", "variant": "plain", "benchmark": "b", "scale": "quick", "benchmark_version": 1,
        "attack_version": 1, "trial": trial, "seed": trial, "status": "ok", "device_kind": "cpu", "execution": "loop",
        "victim_sha": f"v{trial}", "seconds": 1.0, "evaluations": 4, "mse": sum(mse_each) / len(mse_each),
        "psnr": sum(psnr_each) / len(psnr_each), "exact": 0.0, "mse_each": mse_each, "psnr_each": psnr_each,
        **{f"above{limit}": share([psnr > limit for psnr in psnr_each]) for limit in (20, 30)},
        **{f"success_{limit}": share([mse < float(limit) for mse in mse_each]) for limit in ("1e-2", "1e-3", "1e-4")},
        **dict(zip(trial_lines.KEY, key, strict=True)),
    }  # fmt: skip


def small_checkout(root: Path) -> None:
    """Content, results and lock; the working folder must be `root`."""
    for folder in ("benchmarks", "baselines/toy", "src/leakboard"):
        (root / folder).mkdir(parents=True)
    (root / "benchmarks/b.yaml").write_text(yaml.safe_dump(BENCHMARK))
    (root / "baselines/toy/attack.py").write_text("x = 1\n")
    for name, text in (("params", PARAMS), ("published", PUBLISHED), ("dvc", STAGES)):
        (root / f"baselines/toy/{name}.yaml").write_text(text)
    (root / "src/leakboard/__init__.py").write_text(f'"""x"""\nENGINE = {leakboard.ENGINE}\n')
    key = trial_lines.present_keys("toy", config.benchmark("b", "quick"))["plain"]
    mse = [[0.005, 0.0002], [0.05, 1e-7], [0.0015, 0.00001]]
    trial_lines.write(root / TRIALS, trial_lines.frame(line(i, each, key) for i, each in enumerate(mse)))
    derive(root)


def derive(root: Path) -> None:
    """Everything that follows from the lines, their lock included."""
    aggregate.summarise(Results.at("quick"), "toy", "b")
    verdict.write_verdicts(Results.at("quick"))
    write_lock(root)


def write_lock(root: Path) -> None:
    def entry(path: str) -> dict[str, object]:
        content = (root / path).read_bytes()
        return {"path": path, "hash": "md5", "md5": hashlib.md5(content).hexdigest(), "size": len(content)}

    variants = {"plain": {"lr": 0.001, "signed": True}}
    stage = {
        "cmd": "leakboard reproduce toy b",
        "deps": [entry("baselines/toy/attack.py"), {"path": "results", "hash": "md5", "md5": "0" * 32 + ".dir"}],
        "params": {
            "src/leakboard/__init__.py": {"ENGINE": leakboard.ENGINE},
            "baselines/toy/params.yaml": {"version": 1, "variants": variants},
            "benchmarks/b.yaml": {"common": BENCHMARK["common"], "quick": BENCHMARK["quick"]},
        },
        "outs": [entry(TRIALS)],
    }  # fmt: skip
    lock = {"schema": "2.0", "stages": {"toy@quick-b": stage, "toy@quick-c": copy.deepcopy(stage)}}
    (root / "baselines/toy/dvc.lock").write_text(yaml.safe_dump(lock))


def tamper(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
