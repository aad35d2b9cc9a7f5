"""The victim's network for one trial."""

from __future__ import annotations

import torch
from torch import nn

from leakboard.config import Benchmark
from leakboard.data.weights import weights_file
from leakboard.models import build, normalised, uniform_
from leakboard.rng import generator, seeded
from leakboard.victim.secrets import shape_and_classes
from leakboard.victim.training import load_trained


def network(benchmark: Benchmark, trial: int) -> nn.Module:
    """Fresh: a new draw for every trial. Trained: the recipe's one network. Pretrained: public weights, verified."""
    spec = benchmark.network
    draw = trial if spec.weights == "fresh" else 0
    shape, classes = shape_and_classes(benchmark)
    with seeded("network", benchmark.seed, draw):
        model = build(spec.name, shape, classes, spec.width)
    if spec.init == "uniform":
        uniform_(model, generator("uniform", benchmark.seed, draw))
    if spec.weights == "pretrained":
        _load_pretrained(model, f"{spec.name}_{benchmark.data.name}")
    model = normalised(model, benchmark.normalise)
    if spec.weights == "trained":
        model = load_trained(model, benchmark)
    return model.train(spec.mode == "train")


def _load_pretrained(model: nn.Module, name: str) -> None:
    content = torch.load(weights_file(name), map_location="cpu", weights_only=True)
    state = content.get("state_dict", content)
    model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
