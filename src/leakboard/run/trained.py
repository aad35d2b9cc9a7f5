"""What trials need trained before they start: victims, evaluators, and the priors that attacks ask for."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from pathlib import Path

import torch
from torch import nn

from leakboard import config
from leakboard.config import Benchmark, ConfigError
from leakboard.config.recipes import Recipe
from leakboard.recipes import classifier, store, trained
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


def train(needed: Iterable[tuple[Benchmark, Attacker, Collection[int]]], device: str = "auto") -> None:
    """See to it that all that these trials of these attacks need is trained, each recipe once."""
    for benchmark, attack, trials in needed:
        priors = priors_of(attack, benchmark, trials)
        if not priors and benchmark.training is None and benchmark.evaluator is None:
            continue
        machine.settle()
        trained.ready(benchmark, victim_slice(benchmark), priors, machine.device_of(device), trials=trials)


def priors_of(attack: Attacker, benchmark: Benchmark, trials: Iterable[int]) -> list[Recipe]:
    """The recipes of the priors of these trials, each once; none where the benchmark grants none."""
    if "prior" not in benchmark.threat.knows:
        return []
    found = [attack.prior(benchmark, trial) for trial in trials]
    return list({recipe.hash: recipe for recipe in found if recipe is not None}.values())


def record_victims(results: Results, board: str | None) -> list[Path]:
    """Train the victims that are trained by a recipe, and what tells a defence's price, where needed; write the records
    of both.
    """
    written = []
    for name in [board] if board else config.benchmark_names():
        benchmark = results.benchmark(name)
        folder = results.victim(name)
        if benchmark.price is not None:
            machine.settle()
            write_json(folder / PRICE, price(benchmark))
            written.append(folder)
        if benchmark.network.weights == "fresh":
            if board and benchmark.price is None:
                raise ConfigError(f"{name} draws a fresh network for every trial; there is no victim to train")
            continue
        machine.settle()
        victims = victim_slice(benchmark)
        judge = trained.trained_evaluator(benchmark, victims)
        anew = benchmark.training is not None and benchmark.training.anew
        others = [network(benchmark, trial) for trial in range(1, benchmark.trials)] if anew else []
        record = classifier.record(network(benchmark, 0), benchmark, None if judge is None else judge.model, others)
        write_json(folder / "metrics.json", record)
        kept = [need.recipe for need in trained.needs_of(benchmark) if not (anew and need.role == "victim")]
        store.keep_small(kept, folder)  # of victims that no two trials share, there are as many as trials
        written += [folder] if folder not in written else []
    return written
