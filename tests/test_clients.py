"""Honest clients: their local training is the plain loop that everybody writes, to the bit."""

from __future__ import annotations

import copy

import pytest
import torch
from federated_toys import LOSS, PLAIN, held, small
from torch import Tensor, nn
from toys import ROOT, observed, question

from leakboard.config import Federation
from leakboard.federation.clients import Held, known_training, train_locally
from leakboard.federation.rounds import difference
from leakboard.rng import generator
from leakboard.victim.leak import gradient
from leakboard.victim.secrets import Secret


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def by_hand(model: nn.Module, data: Held | Secret, spec: Federation, rng: torch.Generator) -> list[Tensor]:
    """Local training written out: torch's SGD and a loop, as it stood before there were rounds."""
    local = copy.deepcopy(model)
    sgd = torch.optim.SGD(local.parameters(), 1.0, momentum=spec.momentum, weight_decay=spec.weight_decay)
    for epoch in range(spec.epochs):
        for group in sgd.param_groups:
            group["lr"] = spec.learning_rate * spec.decay**epoch
        for _ in range(spec.steps):
            order = torch.randperm(len(data.images), generator=rng)
            for first in range(0, len(data.images), spec.batch):
                chosen = order[first : first + spec.batch]
                sgd.zero_grad()
                LOSS(local(data.images[chosen]), data.labels[chosen]).backward()
                sgd.step()
    return [(new - old).detach() for new, old in zip(local.parameters(), model.parameters(), strict=True)]


@pytest.mark.parametrize("network", ["lenet_sigmoid", "resnet20"])
def test_an_update_has_the_bits_of_a_plain_loop(network):
    spec = {"learning_rate": 0.05, "epochs": 2, "steps": 2, "batch": 2}
    spec |= {"momentum": 0.9, "weight_decay": 0.01, "decay": 0.5}
    asked = question("update", batch=5, network={"name": network, "mode": "train"}, federation=spec)
    hidden, model, seen = observed(asked, 1)
    wanted = by_hand(model, hidden, Federation(**spec), generator("clients", asked.seed, 1))
    assert len(seen.update) == len(wanted) and seen.lies_on == hidden.images.device
    assert all(torch.equal(got, true) for got, true in zip(seen.update, wanted, strict=True))


def test_one_local_step_is_the_gradient_times_the_rate():
    model, data = small().double(), Held(held(4).images.double(), held(4).labels)
    local = train_locally(model, LOSS, data, PLAIN, torch.Generator())
    slope = gradient(model, LOSS, Secret(*data))
    for change, part in zip(
        difference(dict(model.named_parameters()), local.state_dict()).values(), slope, strict=True
    ):
        torch.testing.assert_close(change, -0.05 * part, rtol=1e-10, atol=1e-14)


def test_known_steps_are_the_steps_that_were_made():
    """Two epochs of two passes over three images in mini-batches of two: eight updates."""
    spec = Federation(learning_rate=0.05, steps=2, epochs=2, batch=2, momentum=0.5, weight_decay=0.01, shuffle=False)
    known, model = known_training(spec, 3), small().double()
    data = Held(held(3).images.double(), held(3).labels)
    assert (known.steps, known.epochs, known.batch, known.learning_rate) == (8, 2, 2, 0.05)
    simulated = copy.deepcopy(model)
    velocity = [torch.zeros_like(p) for p in simulated.parameters()]
    for step in range(known.steps):
        part = slice(0, 2) if step % 2 == 0 else slice(2, 3)
        slope = gradient(simulated, LOSS, Secret(data.images[part], data.labels[part]))
        with torch.no_grad():
            for p, g, v in zip(simulated.parameters(), slope, velocity, strict=True):
                v.mul_(known.momentum).add_(g + known.weight_decay * p)
                p.sub_(known.learning_rate * v)
    local = train_locally(model, LOSS, data, spec, torch.Generator())
    for got, true in zip(local.parameters(), simulated.parameters(), strict=True):
        torch.testing.assert_close(got, true, rtol=1e-10, atol=1e-12)
