"""What trials need trained before they start: victims, evaluators, and the priors that attacks ask for."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from leakboard import config
from leakboard.config import Benchmark, ConfigError
from leakboard.recipes import classifier, store, trained
from leakboard.record.aggregate import write_json
from leakboard.record.results import Results
from leakboard.run import machine
from leakboard.run.attacker import Attacker
from leakboard.victim.network import network
from leakboard.victim.secrets import victim_slice


def prior_of(attack: Attacker, benchmark: Benchmark, device: torch.device) -> nn.Module | None:
    """The attack's own copy of its prior, trained now if it is nowhere; DataError if it was trained on victims."""
    recipe = attack.prior(benchmark)
    if recipe is None:
        return None
    found = trained.trained_prior(recipe, benchmark, victim_slice(benchmark), device)
    return copy.deepcopy(found.model).to(device)


def training_seconds(attack: Attacker, benchmark: Benchmark) -> float:
    """What training the attack's prior once took; it is no part of the seconds of any trial."""
    recipe = attack.prior(benchmark)
    weights = None if recipe is None else store.find(recipe, classifier.record_folder(benchmark))
    return (weights and weights.seconds) or 0.0


def train(needed: Iterable[tuple[Benchmark, Attacker]], device: str = "auto") -> None:
    """See to it that all that these attacks need on these benchmarks is trained, each recipe once."""
    for benchmark, attack in needed:
        recipe = attack.prior(benchmark) if "prior" in benchmark.threat.knows else None
        if recipe is None and benchmark.training is None and benchmark.evaluator is None:
            continue
        machine.settle()
        trained.ready(benchmark, victim_slice(benchmark), [recipe] if recipe else [], machine.device_of(device))


def record_victims(results: Results, board: str | None) -> list[Path]:
    """Train the victims that are trained by a recipe, where needed, and write their records."""
    written = []
    for name in [board] if board else config.benchmark_names():
        benchmark = results.benchmark(name)
        if benchmark.network.weights == "fresh":
            if board:
                raise ConfigError(f"{name} draws a fresh network for every trial; there is no victim to train")
            continue
        machine.settle()
        victims, folder = victim_slice(benchmark), results.victim(name)
        judge = trained.trained_evaluator(benchmark, victims)
        record = classifier.record(network(benchmark, 0), benchmark, None if judge is None else judge.model)
        write_json(folder / "metrics.json", record)
        store.keep_small([need.recipe for need in trained.needs_of(benchmark)], folder)
        written.append(folder)
    return written
