"""The attacker's simulation of local training against the client's own, and its derivatives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from toys import observed, question

from leakboard.attack.local_steps import batches_of, mean_gradient
from leakboard.attack.matching import Matching, cosine_distance, squared_distance
from leakboard.models import build
from leakboard.rng import seeded
from leakboard.threat import LocalTraining, ModelUpdate

TRAINING = {"learning_rate": 0.05, "epochs": 2, "batch": 2, "momentum": 0.9, "weight_decay": 0.01, "decay": 0.5}
TRAINING["shuffle"] = False  # the attacker does not know the order


def update(**training):
    """The update of a client with four digits, what it hides, and what the attacker knows."""
    knows = {"knows": ["labels", "local_training"]}
    network = {"name": "lenet_sigmoid", "init": "uniform"}  # whose gradients are not lost in the weights' last digits
    asked = question("update", knows, batch=4, network=network, federation={**TRAINING, **training})
    hidden, _, seen = observed(asked)
    assert isinstance(seen, ModelUpdate)
    return seen, hidden


@pytest.mark.parametrize("changed", [{}, {"batch": None}, {"momentum": 0.0, "weight_decay": 0.0}, {"batch": 3}])
def test_with_the_true_images_the_simulation_is_the_client(changed):
    """Two code paths: the client trains with PyTorch's SGD in place, the attacker simulates without moving anything."""
    seen, hidden = update(**changed)
    assert seen.local is not None
    got = mean_gradient(seen.model, seen.loss, batches_of(hidden.images, hidden.labels, seen.local), seen.local)
    for mine, clients in zip(got, seen.gradient, strict=True):
        torch.testing.assert_close(mine.detach(), clients, rtol=1e-3, atol=1e-4 * float(clients.abs().max()))


def test_one_plain_step_is_the_gradient():
    seen, hidden = update(epochs=1, batch=None, momentum=0.0, weight_decay=0.0)
    loss = seen.loss(seen.model(hidden.images), hidden.labels)
    for mine, plain in zip(seen.gradient, torch.autograd.grad(loss, list(seen.model.parameters())), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))


@pytest.mark.parametrize("cost", [squared_distance, cosine_distance])
def test_derivatives_agree_with_finite_differences(cost):
    with seeded("network", 1, 0):
        model = build("lenet_sigmoid", (1, 8, 8), 4).double()
    rng = torch.Generator().manual_seed(2)
    images = torch.rand(3, 1, 8, 8, generator=rng, dtype=torch.float64)
    labels = torch.tensor([0, 1, 3])
    local = LocalTraining(learning_rate=0.1, steps=4, epochs=2, batch=2, momentum=0.5, weight_decay=0.1)
    change = tuple(0.01 * torch.randn(p.shape, generator=rng, dtype=torch.float64) for p in model.parameters())
    seen = ModelUpdate(
        model=model, loss=nn.CrossEntropyLoss(), shape=(3, 1, 8, 8), classes=4, update=change, local=local
    )
    matching = Matching(seen, cost, "float64", assumed_rate=1.5)
    assert matching.passes == 4
    _, (slope,) = matching(images.requires_grad_(), labels, [images])
    for place in ((0, 0, 1, 1), (1, 0, 4, 2), (2, 0, 7, 7)):
        sides = []
        for step in (1e-4, -1e-4):
            moved = images.detach().clone()
            moved[place] += step
            sides.append(matching(moved.requires_grad_(), labels, [moved])[0])
        torch.testing.assert_close(slope[place], (sides[0] - sides[1]) / 2e-4, rtol=1e-4, atol=1e-9)


def test_a_wrong_learning_rate_is_the_attackers_alone():
    """The observation does not change with what the attacker assumes; at the assumed truth the distance is none."""
    seen, hidden = update(momentum=0.0, weight_decay=0.0)
    images = hidden.images.clone().requires_grad_()
    right, _ = Matching(seen, cosine_distance)(images, hidden.labels, [images])
    wrong, _ = Matching(seen, cosine_distance, assumed_rate=10.0)(images, hidden.labels, [images])
    assert float(right.detach()) < 1e-4 < float(wrong.detach())


def test_unknown_local_training_is_refused_and_one_gradient_is_not():
    seen, hidden = update()
    blind = replace(seen, local=None)
    with pytest.raises(ValueError, match="local training"):
        Matching(blind, cosine_distance)
    images = hidden.images.clone().requires_grad_()
    value, _ = Matching(blind, cosine_distance, simulated=False)(images, hidden.labels, [images])
    assert 0 < float(value.detach()) < 2
