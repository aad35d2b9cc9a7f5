"""Clients of a federation: honest ones that train on their own images, free riders, and who holds which images.

Any callable is a client that takes (model, number of the round, rng) and returns (state dict, number of images).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from leakboard.config import ConfigError, Federation, Training
from leakboard.data.partition import Coverage, coverage, deal
from leakboard.federation.rounds import Client, State, difference, state_of
from leakboard.rng import seeded
from leakboard.threat import LocalTraining

# local_step(model, loss, images, labels, rng) -> what SGD takes for the gradient, one tensor per parameter
LocalStep = Callable[[nn.Module, nn.Module, Tensor, Tensor, torch.Generator], Sequence[Tensor]]
# sending(tensors by the names of the parameters, rng) -> what is sent in their place
Sending = Callable[[State, torch.Generator], State]


class Labelled(Protocol):
    """Images (N, C, H, W) in [0, 1] and labels (N,)."""

    @property
    def images(self) -> Tensor: ...

    @property
    def labels(self) -> Tensor: ...


class Held(NamedTuple):
    """What one client holds: images (N, C, H, W) in [0, 1] and labels (N,)."""

    images: Tensor
    labels: Tensor


class Remembering(NamedTuple):
    """A client that is told of earlier rounds, where no process of its own outlasts one.

    answer(all global models that its node has received, oldest first, number of this round, its generator of any round)
    -> (state dict to send, images it stands for).
    """

    answer: Callable[[Sequence[State], int, Callable[[int], torch.Generator]], tuple[State, int]]


def honest(
    data: Labelled,
    spec: Federation,
    loss: nn.Module,
    local_step: LocalStep | None = None,
    message: Sending | None = None,
) -> Client:
    """A client that does the local training of `spec` on its data and sends its model.

    local_step, message: what a defence puts in the place of the gradient of a step, and of what is sent.
    """

    def client(model: nn.Module, number: int, rng: torch.Generator) -> tuple[State, int]:
        state = state_of(train_locally(model, loss, data, spec, rng, local_step))
        return (state if message is None else _defended(model, state, message, rng)), len(data.images)

    return client


def free_rider(images: int) -> Client:
    """A client that sends the global model back unchanged and claims to have trained on so many images."""
    return lambda model, number, rng: (state_of(model), images)


def train_locally(
    model: nn.Module,
    loss: nn.Module,
    data: Labelled,
    spec: Federation,
    rng: torch.Generator,
    local_step: LocalStep | None = None,
) -> nn.Module:
    """A copy of the model after the local training of `spec`; `rng` draws the mini-batches, and dropout from its seed.

    The optimiser is a new one: what it remembers of a round ends with the round.
    """
    local = copy.deepcopy(model)
    parameters = list(local.parameters())
    descent = optimiser_of(parameters, spec)
    size = spec.batch or len(data.images)
    with seeded("local training", rng.initial_seed()):
        for step in range(spec.epochs * spec.steps):
            descent.param_groups[0]["lr"] = spec.learning_rate * spec.decay ** (step // spec.steps)
            drawn = spec.shuffle and size < len(data.images)
            order = torch.randperm(len(data.images), generator=rng) if drawn else torch.arange(len(data.images))
            for chosen in order.to(data.images.device).split(size):
                images, labels = data.images[chosen], data.labels[chosen]
                descent.zero_grad()
                if local_step is None:
                    loss(local(images), labels).backward()
                else:
                    for parameter, slope in zip(parameters, local_step(local, loss, images, labels, rng), strict=True):
                        parameter.grad = slope
                descent.step()
    return local


def optimiser_of(parameters: list[nn.Parameter], spec: Federation | Training) -> torch.optim.Optimizer:
    """A new one, of the kind and with the settings that a training names."""
    if spec.optimiser == "adam":
        return torch.optim.Adam(parameters, spec.learning_rate, weight_decay=spec.weight_decay)
    return torch.optim.SGD(parameters, spec.learning_rate, momentum=spec.momentum, weight_decay=spec.weight_decay)


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
        optimiser=spec.optimiser,
    )


def spread(data: Labelled, spec: Federation, clients: int, seed: int) -> tuple[list[Held], Coverage]:
    """The images among so many clients as the partition of `spec` says, and what that reaches.

    ConfigError when these images cannot be spread so.
    """
    try:
        parts = deal(data.labels.cpu(), spec, clients, np.random.default_rng(seed))
    except ValueError as error:
        raise ConfigError(f"federation.partition {spec.partition!r}: {error}") from None
    places = [torch.from_numpy(part).to(data.images.device) for part in parts]
    return [Held(data.images[part], data.labels[part]) for part in places], coverage(data.labels.cpu(), parts)


def _defended(model: nn.Module, state: State, message: Sending, rng: torch.Generator) -> State:
    """The state with its parameters as the defence sends them. Buffers go as they are: noise makes variances negative.

    Where the defence left a change alone, the parameter keeps its very bits.
    """
    before = {key: parameter.detach() for key, parameter in model.named_parameters()}
    change = difference(before, state)
    sent = message(dict(change), rng)
    kept = {key: torch.where(sent[key] == change[key], state[key], before[key] + sent[key]) for key in change}
    return {**state, **kept}
