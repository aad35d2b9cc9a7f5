"""What a defence costs: how well the same network classifies that was trained under it, to the same number of steps.

What acts on a network's form, a local step or a message acts in every step of that training, on the gradient of its
batch. Aggregates and answers leave it as it is: the sum over clients is what a step averages anyway, and nobody asks.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from leakboard.config import Benchmark, ConfigError
from leakboard.config.recipes import Classifier
from leakboard.data import refuse_overlap, select
from leakboard.recipes import classifier, store
from leakboard.recipes.classifier import Protection
from leakboard.rng import generator
from leakboard.victim.defences import Defences, defences_of
from leakboard.victim.privacy import DELTA, epsilon


def price(benchmark: Benchmark) -> dict[str, Any]:
    """What is committed: accuracy on so many images of the victims' split, after so many steps; the recipe and the
    weights. Under DP-SGD epsilon (None: without bound) at delta. ConfigError where the benchmark has no `price`.
    """
    recipe = benchmark.priced
    if recipe is None:
        raise ConfigError(f"{benchmark.name} has no `price`, which says how a network is trained under its defence")
    acting, on = defences_of(benchmark), classifier.unseen(benchmark, None)
    learnt = select(recipe.trained_on)
    refuse_overlap({f"the images of {benchmark.name} that tell the price": select(on), "its training images": learnt})
    weights = store.obtain(recipe, lambda: _trained(recipe, acting))
    network = _network(recipe, acting)
    network.load_state_dict(store.load(weights.path, network.state_dict()))
    count = len(learnt.positions)
    found = {
        "recipe": recipe.hash,
        "sha256": classifier.state_sha(network.state_dict()),
        "steps": classifier.steps_of(recipe.training, count),
        **classifier.accuracy(network, on),
    }
    return {**found, **_privacy(recipe, count)}


def _network(recipe: Classifier, acting: Defences) -> Any:
    network = classifier.untrained(recipe)
    return network if acting.network is None else acting.network(network, generator("defence", recipe.seed))


def _trained(recipe: Classifier, acting: Defences) -> dict[str, Tensor]:
    network = _network(recipe, acting)
    under = Protection(acting.local_step, acting.message, generator("price", recipe.seed))
    classifier.train(network, recipe, *select(recipe.trained_on).take(), under=under)
    return network.state_dict()


def _privacy(recipe: Classifier, count: int) -> dict[str, float | None]:
    if "dp_sgd" not in recipe.defence:
        return {}
    spec, multiplier = recipe.training, recipe.defence["dp_sgd"]["multiplier"]
    assert isinstance(multiplier, float)
    rate = min(1.0, spec.batch / count)
    spent = epsilon(multiplier, rate, classifier.steps_of(spec, count))
    return {"epsilon": round(spent, 4) if multiplier else None, "delta": DELTA}
