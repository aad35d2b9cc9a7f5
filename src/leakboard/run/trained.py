"""What trials need trained before they start: victims, evaluators, and the priors that attacks ask for."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from leakboard import config
from leakboard.config import Benchmark, ConfigError
from leakboard.config.recipes import Recipe
from leakboard.recipes import classifier, store, trained
from leakboard.recipes.trained import Need
from leakboard.record.aggregate import write_json
from leakboard.record.prices import PRICE
from leakboard.record.results import Results
from leakboard.run import machine
from leakboard.run.attacker import Attacker
from leakboard.victim.network import network
from leakboard.victim.price import price
from leakboard.victim.secrets import victim_slice


def prior_of(attack: Attacker, benchmark: Benchmark, device: torch.device, trial: int = 0) -> nn.Module | None:
    """The attack's own copy of its prior, trained now if it is nowhere; DataError if it was trained on victims."""
    recipe = attack.prior(benchmark, trial)
    if recipe is None:
        return None
    found = trained.trained_prior(recipe, benchmark, victim_slice(benchmark), device)
    return copy.deepcopy(found.model).to(device)


def training_seconds(attack: Attacker, benchmark: Benchmark, trial: int = 0) -> float:
    """What training the attack's prior once took; it is no part of the seconds of any trial."""
    recipe = attack.prior(benchmark, trial)
    weights = None if recipe is None else store.find(recipe, classifier.record_folder(benchmark))
    return (weights and weights.seconds) or 0.0


@dataclass(frozen=True)
class Training:
    """What trials need and lack, as work for a worker. device: that of a prior."""

    benchmark: Benchmark
    need: Need
    device: str

    def run(self) -> None:
        machine.settle()
        trained.provide(self.need, self.benchmark, machine.device_of(self.device))


def lacking(needed: Iterable[tuple[Benchmark, Attacker, Collection[int]]], device: str = "auto") -> list[Training]:
    """What these trials of these attacks need trained and is nowhere yet, each recipe once."""
    found: dict[str, Training] = {}
    for benchmark, attack, trials in needed:
        priors = priors_of(attack, benchmark, trials)
        if trained.needs_of(benchmark, priors, trials):
            for need in trained.lacking(benchmark, victim_slice(benchmark), priors, trials):
                found.setdefault(need.recipe.hash, Training(benchmark, need, device))
    return list(found.values())


def priors_of(attack: Attacker, benchmark: Benchmark, trials: Iterable[int]) -> list[Recipe]:
    """The recipes of the priors of these trials, each once; none where the benchmark grants none."""
    if "prior" not in benchmark.threat.knows:
        return []
    found = [attack.prior(benchmark, trial) for trial in trials]
    return list({recipe.hash: recipe for recipe in found if recipe is not None}.values())


def record_victims(results: Results, board: str | None) -> list[Path]:
    """Train what no trial trains for itself, where needed, and write the records: of victims, evaluators, prices."""
    written = []
    for name in [board] if board else config.benchmark_names():
        benchmark = results.benchmark(name)
        folder = results.victim(name)
        if benchmark.price is not None:
            machine.settle()
            write_json(folder / PRICE, price(benchmark))
            written.append(folder)
        if benchmark.network.weights == "fresh" and benchmark.evaluator is None:
            if board and benchmark.price is None:
                raise ConfigError(f"{name} draws a fresh network for every trial; there is no victim to train")
            continue
        machine.settle()
        anew = benchmark.training is not None and benchmark.training.anew
        write_json(folder / "metrics.json", _record(benchmark, anew))
        kept = [need.recipe for need in trained.needs_of(benchmark) if not (anew and need.role == "victim")]
        store.keep_small(kept, folder)  # of victims that no two trials share, there are as many as trials
        written += [folder] if folder not in written else []
    return written


def _record(benchmark: Benchmark, anew: bool) -> dict[str, Any]:
    """Of a benchmark whose victims are fresh draws, the evaluator's alone."""
    judge = trained.trained_evaluator(benchmark, victim_slice(benchmark))
    if benchmark.network.weights == "fresh":
        assert judge is not None
        return classifier.record_of_judge(judge.model, benchmark)
    others = [network(benchmark, trial) for trial in range(1, benchmark.trials)] if anew else []
    return classifier.record(network(benchmark, 0), benchmark, None if judge is None else judge.model, others)
