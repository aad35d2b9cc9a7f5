"""What a defence costs: a training under it, that without one being the same; and what DP-SGD promises for it."""

from __future__ import annotations

import json
import math

import pytest
import torch
from test_defences import asked
from torch import nn
from toys import ROOT

from leakboard import config
from leakboard.config import Training
from leakboard.config.recipes import Classifier
from leakboard.data import DataError, select
from leakboard.recipes import classifier, store
from leakboard.recipes.classifier import Protection, classifier_of, steps_of
from leakboard.record import prices
from leakboard.record.results import Results
from leakboard.rng import generator
from leakboard.run import trained
from leakboard.victim import price as pricing
from leakboard.victim.price import price
from leakboard.victim.privacy import DELTA, epsilon

SPEC = {"epochs": 4, "batch": 50, "learning_rate": 0.5, "augment": False}
IMAGES, STEPS = {"count": 500}, 40


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch, tmp_path):
    """Of the checkout, but what is trained lies elsewhere."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(store, "folder", lambda: tmp_path / "recipes")


def priced(defence: dict | None = None, **more) -> config.Benchmark:
    """Of a network that learns digits in a second."""
    stated = {"network": {"name": "mlp", "width": 16}, "price": {**SPEC, "images": IMAGES}, **more}
    return asked("gradient", defence, **stated)


def recipe(**more) -> Classifier:
    found = priced().priced
    assert found is not None
    return found.model_copy(update=more)


def learnt(under: Protection | None) -> list[torch.Tensor]:
    """The weights that a training ends at."""
    network = classifier.untrained(recipe())
    classifier.train(network, recipe(), *select(recipe().trained_on).take(), under=under)
    return [parameter.detach() for parameter in network.parameters()]


def test_without_a_defence_it_is_the_plain_training_and_its_recipe():
    assert all(
        torch.equal(*pair) for pair in zip(learnt(None), learnt(Protection(None, None, generator("p"))), strict=True)
    )
    spec = priced(network={"name": "mlp", "width": 16, "weights": "trained"}, training={**SPEC, "images": IMAGES})
    assert spec.priced.hash == classifier_of(spec).hash != priced({"clipping": {"norm": 1}}).priced.hash


def test_recipes_of_committed_victims_have_not_moved():
    for scale in config.SCALES:
        stated = json.loads((Results.at(scale).victim("lenet_cifar10_gradient_trained") / "metrics.json").read_text())
        assert classifier_of(config.benchmark("lenet_cifar10_gradient_trained", scale)).hash == stated["recipe"]


def test_a_message_is_every_steps_mean_gradient():
    """The first is that of the first batch, by the names of the parameters; what is sent is what is stepped along."""
    given: list[dict[str, torch.Tensor]] = []

    def nothing(tensors, rng):
        given.append({name: tensor.clone() for name, tensor in tensors.items()})
        return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}

    network, spec = classifier.untrained(recipe()), recipe(training=Training(**SPEC, weight_decay=0.0, images=IMAGES))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    images, labels = select(spec.trained_on).take()
    classifier.train(network, spec, images, labels, under=Protection(None, nothing, generator("p")))
    assert len(given) == STEPS == steps_of(spec.training, len(images))
    assert all(torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True)), "zeros move nothing"
    first = torch.randperm(len(images), generator=generator("training", spec.seed))[:50]
    nn.functional.cross_entropy(network.train()(images[first]), labels[first]).backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(given[0][name], parameter.grad)


def test_a_local_step_takes_the_place_of_the_gradient_and_a_message_comes_after_it():
    order = []

    def local_step(model, loss, images, labels, rng):
        order.append("step")
        return list(torch.autograd.grad(loss(model(images), labels), list(model.parameters())))

    def message(tensors, rng):
        order.append("message")
        return tensors

    both = learnt(Protection(local_step, message, generator("p")))
    assert order == ["step", "message"] * STEPS
    assert all(torch.equal(*pair) for pair in zip(both, learnt(None), strict=True))


SILENT = {
    "noise": {"gaussian_noise": {"deviation": 0.0}},
    "clipping": {"clipping": {"norm": 1e9}},
    "pruning": {"pruning": {"share": 0.0}},
    "dp_sgd": {"dp_sgd": {"norm": 1e9, "multiplier": 0.0}},
    "soteria": {"soteria": {"share": 0.0}},
}


@pytest.mark.parametrize("name", SILENT)
def test_a_defence_that_does_nothing_costs_nothing(name):
    plain, defended = price(priced()), price(priced(SILENT[name]))
    assert defended["accuracy"] == pytest.approx(plain["accuracy"], abs=0.01) and plain["steps"] == STEPS


def test_a_defence_that_stops_the_training_looks_like_that():
    """Digits are learnt without it; with a noise a hundred times the gradient, or with one that is cut away, not."""
    plain, chance = price(priced())["accuracy"], 0.1
    assert plain > 0.7
    loud = price(priced({"gaussian_noise": {"deviation": 10.0}}))["accuracy"]
    cut = price(priced({"clipping": {"norm": 1e-6}}))["accuracy"]
    assert max(loud, cut) < chance + 0.25 < plain - 0.3
    mild = price(priced({"gaussian_noise": {"deviation": 1e-3}}))["accuracy"]
    assert mild > plain - 0.05


def test_a_form_is_trained_in_that_form():
    network = pricing._network(recipe(), pricing.defences_of(priced({"precode": {"width": 8}})))
    assert any(type(module).__name__ == "Bottleneck" for module in network.modules())
    found = price(priced({"precode": {"width": 8}}))
    assert found["recipe"] != price(priced())["recipe"] and found["sha256"] != price(priced())["sha256"]


def test_a_training_is_priced_on_images_that_it_has_not_seen():
    wrong = priced().model_copy(update={"price": Training(**SPEC, images={"split": "test"})})
    with pytest.raises(DataError, match="toy that tell the price and its training images share"):
        price(wrong)
    with pytest.raises(config.ConfigError, match="has no `price`"):
        price(asked("gradient"))


def test_the_record_is_read_as_long_as_it_is_of_the_present_recipe(tmp_path, monkeypatch):
    """Written by `leakboard reproduce victims`, the same bytes again; shown with epsilon, and not once it is stale."""
    board = priced({"dp_sgd": {"norm": 1.0, "multiplier": 2.0}})
    monkeypatch.setattr(Results, "benchmark", lambda self, name: board)
    results = Results("quick", tmp_path)
    (folder,) = trained.record_victims(results, "toy")
    text = (folder / prices.PRICE).read_text()
    trained.record_victims(results, "toy")
    assert (folder / prices.PRICE).read_text() == text
    found = prices.price_of(results, board)
    assert found is not None and (found.steps, found.images, found.delta) == (STEPS, 445, DELTA)
    assert found.epsilon == pytest.approx(epsilon(2.0, 50 / 500, STEPS), abs=1e-3)
    assert prices.price_of(results, priced()) is None
    (folder / prices.PRICE).write_text("{}")
    with pytest.raises(prices.RecordError, match=r"price\.json: expected the record of a price"):
        prices.price_of(results, board)


# ---------------------------------------------------------------------------------------------------------------------
# Epsilon.


@pytest.mark.parametrize(("multiplier", "rate", "steps"), [(1.0, 0.01, 200), (0.6, 0.1, 50), (4.0, 1.0, 10)])
def test_epsilon_is_opacus(multiplier, rate, steps):
    """As its engine spends it, step by step."""
    opacus = pytest.importorskip("opacus")
    accountant = opacus.PrivacyEngine(accountant="rdp").accountant
    for _ in range(steps):
        accountant.step(noise_multiplier=multiplier, sample_rate=rate)
    assert epsilon(multiplier, rate, steps) == accountant.get_epsilon(DELTA)


@pytest.mark.parametrize(("multiplier", "steps"), [(2.0, 5), (8.0, 40)])
def test_epsilon_of_whole_batches_is_the_closed_form(multiplier, steps):
    """Renyi divergence a / (2 s^2) a step, and the conversion of Canonne et al. 2020, its least over the orders a."""
    pytest.importorskip("opacus")
    orders = [1 + step / 100 for step in range(1, 20_000)]
    by_order = [
        steps * a / (2 * multiplier**2) + math.log1p(-1 / a) - (math.log(DELTA) + math.log(a)) / (a - 1) for a in orders
    ]
    assert epsilon(multiplier, 1.0, steps) == pytest.approx(min(by_order), rel=2e-2)


def test_epsilon_falls_with_noise_and_is_boundless_without():
    pytest.importorskip("opacus")
    spent = [epsilon(multiplier, 0.05, 100) for multiplier in (0.5, 1.0, 2.0)]
    assert spent == sorted(spent, reverse=True) and epsilon(0.0, 0.05, 100) == math.inf
