"""What leaks: from the victim's secret and network to what the threat model lets an attacker see, and nothing more."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leakboard.config import Benchmark
from leakboard.federation import rounds as federation
from leakboard.threat import (
    KINDS,
    Gradient,
    ModelSequence,
    ModelUpdate,
    Participation,
    Public,
    ReleasedModel,
    Seen,
    ThreatModel,
    Turn,
)
from leakboard.victim.secrets import Secret


def threat_model(benchmark: Benchmark) -> ThreatModel:
    threat = benchmark.threat
    return ThreatModel(threat.attacker, threat.conduct, KINDS[threat.sees], frozenset(threat.knows))


def gradient(model: nn.Module, loss: nn.Module, secret: Secret) -> tuple[Tensor, ...]:
    """The gradient of the victim's loss on its batch, one tensor per parameter, in the model's own mode."""
    parameters = [parameter.requires_grad_() for parameter in model.parameters()]
    return tuple(g.detach().clone() for g in torch.autograd.grad(loss(model(secret.images), secret.labels), parameters))


def leak(
    benchmark: Benchmark,
    secret: Secret,
    model: nn.Module,
    public: Public | None,
    classes: int,
    rng: torch.Generator,
) -> Seen:
    """The observation of one trial; `rng` is the clients' own. Labels that are given are sorted: no order shows."""
    threat = threat_model(benchmark)
    loss = nn.CrossEntropyLoss()
    shared: dict[str, Any] = {
        "model": copy.deepcopy(model),
        "loss": copy.deepcopy(loss),
        "shape": tuple(secret.images.shape),
        "classes": classes,
        "labels": secret.labels.sort().values.clone() if "labels" in threat.knows else None,
        "public": public,
        "budget": benchmark.budget,
    }
    return _LEAKS[threat.sees](benchmark, Victim(secret, model, loss, rng), shared)


class Victim(NamedTuple):
    """What only the victim's side holds."""

    secret: Secret
    model: nn.Module
    loss: nn.Module
    rng: torch.Generator


def _gradient(benchmark: Benchmark, victim: Victim, shared: dict) -> Gradient:
    return Gradient(**shared, gradient=gradient(victim.model, victim.loss, victim.secret))


def _update(benchmark: Benchmark, victim: Victim, shared: dict) -> ModelUpdate:
    secret, model, loss, rng = victim
    after = federation.train_locally(model, loss, secret, federation.federation_of(benchmark), rng)
    return ModelUpdate(**shared, update=federation.difference(model, after), local=_known(benchmark, secret))


def _sequence(benchmark: Benchmark, victim: Victim, shared: dict) -> ModelSequence:
    secret, model, loss, rng = victim
    spec = federation.federation_of(benchmark)
    own = _own(shared["public"], spec.clients, secret)
    states, own_updates = federation.sequence(model, loss, secret, own, spec, rng)
    clients = spec.clients if "clients" in benchmark.threat.knows else None
    return ModelSequence(
        **shared, models=states, own_update=own_updates, clients=clients, local=_known(benchmark, secret)
    )


def _participation(benchmark: Benchmark, victim: Victim, shared: dict) -> Participation:
    secret, model, loss, rng = victim
    spec = federation.federation_of(benchmark)
    own = _own(shared["public"], spec.clients, secret)
    rounds = federation.turns(copy.deepcopy(model), loss, secret, own, spec, rng)
    return Participation(**shared, turns=_once(rounds), target=int(secret.labels[0]))


def _released(benchmark: Benchmark, victim: Victim, shared: dict) -> ReleasedModel:
    service, secret = copy.deepcopy(victim.model), victim.secret

    def query(images: Tensor) -> Tensor:
        with torch.set_grad_enabled(white):
            return service(images).softmax(1)

    white = benchmark.threat.access == "white"
    if not white:
        shared["model"] = nn.Module()
    return ReleasedModel(**shared, query=query, access=benchmark.threat.access, target=int(secret.labels[0]))


def _known(benchmark: Benchmark, secret: Secret):
    knows = "local_training" in benchmark.threat.knows
    return federation.known_training(federation.federation_of(benchmark), len(secret.images)) if knows else None


def _own(public: Public | None, clients: int, secret: Secret) -> Public:
    """The attacking client's own images: as many public ones as each peer has secret ones."""
    if public is None:
        raise ValueError("an attacking client needs public images of its own")
    share = len(secret.images) // max(1, clients - 1)
    return Public(public.images[:share], public.labels[:share])


def _once(rounds: Iterator[Turn]):
    """The rounds happen once: a second iteration goes on where the first one stopped."""
    return lambda: rounds


_LEAKS = {
    Gradient: _gradient,
    ModelUpdate: _update,
    ModelSequence: _sequence,
    Participation: _participation,
    ReleasedModel: _released,
}
