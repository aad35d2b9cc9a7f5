"""The victim's network for one trial."""

from __future__ import annotations

from torch import nn

from leakboard.config import Benchmark, ConfigError
from leakboard.recipes.networks import drawn
from leakboard.recipes.trained import trained_victim
from leakboard.rng import generator
from leakboard.victim.defences import defences_of
from leakboard.victim.secrets import victim_slice


def network(benchmark: Benchmark, trial: int) -> nn.Module:
    """Fresh: a new draw for every trial. Trained: the recipe's network. Pretrained: public weights, verified.

    A defence may change the form of the network. ConfigError where it would have to be trained in that form.
    """
    spec, form = benchmark.network, defences_of(benchmark).network
    draw = trial if spec.weights == "fresh" else 0
    if spec.weights == "trained":
        if form is not None:
            raise ConfigError(f"{benchmark.name}: a defence in the form of a network has no recipe that trains it")
        model = trained_victim(benchmark, victim_slice(benchmark), trial).model
    else:
        model = drawn(spec, benchmark.data, benchmark.normalise, benchmark.seed, draw)
        model = model if form is None else form(model, generator("defence", benchmark.seed, draw))
    return model.train(spec.mode == "train")
