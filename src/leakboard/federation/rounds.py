"""Federated training around an attack: local steps, averaging, and the rounds that a client lives through.

In the federated kinds of observation the secret images are spread over the honest peers; the attacking client 0 owns
public images.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from leakboard.config import Benchmark, ConfigError, Federation
from leakboard.threat import LocalTraining, Public, Turn
from leakboard.victim.secrets import Secret

State = dict[str, Tensor]


def federation_of(benchmark: Benchmark) -> Federation:
    if benchmark.federation is None:
        raise ConfigError(f"{benchmark.name}: what is seen is {benchmark.threat.sees!r}, which needs `federation`")
    return benchmark.federation


def known_training(spec: Federation, data: int) -> LocalTraining:
    """What an attacker who knows the protocol knows of a client's local training on `data` images."""
    return LocalTraining(
        learning_rate=spec.learning_rate,
        steps=spec.steps * spec.epochs * (1 if spec.batch is None else -(-data // spec.batch)),
        epochs=spec.epochs,
        batch=spec.batch,
        momentum=spec.momentum,
        weight_decay=spec.weight_decay,
        decay=spec.decay,
    )


def train_locally(
    model: nn.Module, loss: nn.Module, data: Secret | Public, spec: Federation, rng: torch.Generator
) -> nn.Module:
    """A copy of the model after the local SGD of `spec`; `rng` draws the mini-batches."""
    local = copy.deepcopy(model)
    sgd = torch.optim.SGD(
        local.parameters(), spec.learning_rate, momentum=spec.momentum, weight_decay=spec.weight_decay
    )
    size = spec.batch or len(data.images)
    for step in range(spec.epochs * spec.steps):
        sgd.param_groups[0]["lr"] = spec.learning_rate * spec.decay ** (step // spec.steps)
        drawn = spec.shuffle and size < len(data.images)
        order = torch.randperm(len(data.images), generator=rng) if drawn else torch.arange(len(data.images))
        for chosen in order.to(data.images.device).split(size):
            images, labels = data.images[chosen], data.labels[chosen]
            sgd.zero_grad()
            loss(local(images), labels).backward()
            sgd.step()
    return local


def difference(before: nn.Module, after: nn.Module) -> tuple[Tensor, ...]:
    """after - before, one tensor per parameter."""
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    return tuple((new - old).detach().clone() for old, new in pairs)


def average(states: list[State]) -> State:
    """FedAvg over clients with equally many images; integer buffers are taken from the first."""
    mean = {}
    for key, first in states[0].items():
        stacked = torch.stack([state[key] for state in states])
        mean[key] = stacked.mean(0) if first.is_floating_point() else first.clone()
    return mean


def peers(secret: Secret, clients: int) -> list[Secret]:
    """The secret images, spread evenly over the honest clients."""
    if clients < 2 or len(secret.images) % (clients - 1):
        raise ConfigError(f"{len(secret.images)} secret images do not spread evenly over {clients - 1} honest clients")
    share = len(secret.images) // (clients - 1)
    parts = zip(secret.images.split(share), secret.labels.split(share), strict=True)
    return [Secret(images, labels) for images, labels in parts]


def sequence(
    model: nn.Module, loss: nn.Module, secret: Secret, own: Public, spec: Federation, rng: torch.Generator
) -> tuple[list[State], list[tuple[Tensor, ...]]]:
    """Honest rounds as client 0 sees them: the global models before and after each, and its own updates."""
    current, states, own_updates = copy.deepcopy(model), [_copy(model)], []
    for _ in range(spec.rounds):
        clients: list[Secret | Public] = [own, *peers(secret, spec.clients)]
        trained = [train_locally(current, loss, data, spec, rng) for data in clients]
        own_updates.append(difference(current, trained[0]))
        current.load_state_dict(average([local.state_dict() for local in trained]))
        states.append(_copy(current))
    return states, own_updates


def turns(
    model: nn.Module, loss: nn.Module, secret: Secret, own: Public, spec: Federation, rng: torch.Generator
) -> Iterator[Turn]:
    """Live rounds: client 0 answers each turn with a state; an unanswered turn submits the global model unchanged."""
    current = copy.deepcopy(model)
    for number in range(spec.rounds):
        turn = Turn(number, copy.deepcopy(current), own)
        yield turn
        honest = [train_locally(current, loss, data, spec, rng).state_dict() for data in peers(secret, spec.clients)]
        current.load_state_dict(average([turn.answer or _copy(current), *honest]))


def _copy(model: nn.Module) -> State:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}
