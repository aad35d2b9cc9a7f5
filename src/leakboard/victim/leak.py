"""What leaks: one function per kind of observation, from the victim's side to what an attacker sees.

Everything federated is a view of `federation.rounds`: a server sees one message, a client consecutive models and its
own messages, a live client writes its messages itself. Defences act here, at the points that `defences.py` names.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leakboard.config import Benchmark, ConfigError, Federation
from leakboard.federation.clients import Held, Labelled, honest, known_training, spread
from leakboard.federation.rounds import (
    Client,
    Draws,
    Message,
    Plan,
    Round,
    State,
    derived,
    fitting,
    rounds,
    state_of,
    taking_part,
    update_of,
)
from leakboard.federation.rules import rule_named
from leakboard.recipes.restorer import degraded
from leakboard.rng import seeded
from leakboard.threat import (
    KINDS,
    Gradient,
    LocalTraining,
    ModelSequence,
    ModelUpdate,
    Participation,
    Public,
    ReleasedModel,
    Seen,
    ThreatModel,
    Turn,
)
from leakboard.victim.defences import Defences, defences_of
from leakboard.victim.secrets import Secret, images_of_clients


def threat_model(benchmark: Benchmark) -> ThreatModel:
    threat = benchmark.threat
    return ThreatModel(threat.attacker, threat.conduct, KINDS[threat.sees], frozenset(threat.knows))


def gradient(model: nn.Module, loss: nn.Module, secret: Labelled) -> tuple[Tensor, ...]:
    """The gradient of the victim's loss on its batch, one tensor per parameter, in the model's own mode."""
    parameters = [parameter.requires_grad_() for parameter in model.parameters()]
    return tuple(g.detach().clone() for g in torch.autograd.grad(loss(model(secret.images), secret.labels), parameters))


class Victim(NamedTuple):
    """What only the victim's side holds. rng: the clients' own."""

    secret: Secret
    model: nn.Module
    loss: nn.Module
    rng: torch.Generator
    defences: Defences


def leak(
    benchmark: Benchmark,
    secret: Secret,
    model: nn.Module,
    public: Public | None,
    classes: int,
    rng: torch.Generator,
) -> Seen:
    """The observation of one trial; `rng` is the clients' own. Labels that are given are sorted: no order shows.

    ConfigError when the benchmark lacks what this kind of observation needs, or names a defence that there is not.
    """
    threat = threat_model(benchmark)
    loss = nn.CrossEntropyLoss()
    shared = shared_by_all(benchmark, model, loss, tuple(secret.images.shape), classes, public, secret.images.device)
    shared["labels"] = secret.labels.sort().values.clone() if "labels" in threat.knows else None
    return _LEAKS[threat.sees](benchmark, Victim(secret, model, loss, rng, defences_of(benchmark)), shared)


def shared_by_all(
    benchmark: Benchmark,
    model: nn.Module,
    loss: nn.Module,
    shape: tuple[int, ...],
    classes: int,
    public: Public | None,
    device: torch.device,
) -> dict[str, Any]:
    """What every kind of observation holds, but labels; model and loss are copies."""
    return {
        "model": copy.deepcopy(model),
        "loss": copy.deepcopy(loss),
        "shape": shape,
        "classes": classes,
        "public": public,
        "budget": benchmark.budget,
        "lies_on": device,
    }


def _gradient(benchmark: Benchmark, victim: Victim, shared: dict) -> Gradient:
    """Of the whole secret; where messages are aggregated on the way, it is spread over clients, each with its own."""
    secret, _, _, rng, defences = victim
    if defences.aggregate is None:
        return Gradient(**shared, gradient=tuple(_sent(victim, secret, rng).values()))
    seed, spec = _seed(victim), federation_of(benchmark)
    draws = derived(seed)
    messages = [
        Message(place, _sent(victim, part, draws(0, place)), len(part.images))
        for place, part in enumerate(_parts(spec, victim, seed, spec.clients))
    ]
    received = defences.aggregate(messages, draws(0, "aggregate"))
    return Gradient(**shared, gradient=tuple(received[0].state.values()))


def _sent(victim: Victim, data: Labelled, rng: torch.Generator) -> State:
    """What one client sends of one step on its data, by the names of the parameters."""
    _, model, loss, _, defences = victim
    with seeded("gradient", rng.initial_seed()):  # dropout draws from the global generator
        if defences.local_step is None:
            slope = gradient(model, loss, data)
        else:
            slope = tuple(defences.local_step(model, loss, data.images, data.labels, rng))
    state = dict(zip((name for name, _ in model.named_parameters()), slope, strict=True))
    return state if defences.message is None else defences.message(state, rng)


def _update(benchmark: Benchmark, victim: Victim, shared: dict) -> ModelUpdate:
    """The server's view of one round: the message of one client, which holds the whole secret.

    Where messages are aggregated on the way, all of the secret is spread over the clients, and what is seen is of all.
    """
    spec = federation_of(benchmark).model_copy(update={"share": 1.0})
    if victim.defences.aggregate is None:
        lived = next(_rounds([_honest(victim.secret, spec, victim)], victim, spec, lambda *_: victim.rng))
    else:
        seed = _seed(victim)
        lived = next(_rounds(_peers(spec, victim, seed, spec.clients), victim, spec, derived(seed)))
    update = update_of(victim.model, lived.before, lived.received[0].state)
    return ModelUpdate(**shared, update=update, local=known_of(benchmark, len(victim.secret.images)))


def _sequence(benchmark: Benchmark, victim: Victim, shared: dict) -> ModelSequence:
    """Client 0's view of honest rounds. It sees every global model; in a round without it, its own update is zero."""
    spec, own, seed = federation_of(benchmark), _own(benchmark, victim.secret, shared["public"]), _seed(victim)
    clients = [_honest(own, spec, victim), *_peers(spec, victim, seed, spec.clients - 1)]
    states, own_updates = [state_of(victim.model)], []
    for lived in _rounds(clients, victim, spec, derived(seed)):
        mine = lived.sent_by(0)
        own_updates.append(update_of(victim.model, lived.before, mine.state if mine else lived.before))
        states.append(lived.after)
    return ModelSequence(
        **shared,
        models=states,
        own_update=own_updates,
        own_data=own,
        clients=spec.clients if "clients" in benchmark.threat.knows else None,
        local=known_of(benchmark, len(own.images)),
    )


def _participation(benchmark: Benchmark, victim: Victim, shared: dict) -> Participation:
    """The rounds happen once: a second iteration goes on where the first one stopped."""
    spec, target, held = federation_of(benchmark), int(victim.secret.labels[0]), _held(benchmark, victim)
    own, seed = _own(benchmark, held, shared["public"]), _seed(victim)
    if benchmark.target is not None and bool((own.labels == target).any()):
        raise ConfigError(f"{benchmark.name}: the client that attacks holds images of class {target}, which it seeks")
    answers: dict[int, State] = {}

    def live(model: nn.Module, number: int, rng: torch.Generator) -> tuple[State, int]:
        return answers.pop(number, None) or state_of(model), len(own.images)

    lived = _rounds(
        [live, *_peers(spec, victim._replace(secret=held), seed, spec.clients - 1)], victim, spec, derived(seed)
    )
    turns = _turns(copy.deepcopy(victim.model), own, spec, derived(seed), answers, lived)
    known = known_of(benchmark, len(own.images))
    return Participation(**shared, turns=lambda: turns, target=target, local=known)


def _held(benchmark: Benchmark, victim: Victim) -> Secret:
    """What the honest clients hold between them: the secret batch, or all images where a class is sought."""
    if benchmark.target is None:
        return victim.secret
    return images_of_clients(benchmark, int(victim.secret.labels[0])).to(victim.secret.images.device)


def _turns(
    current: nn.Module, own: Public, spec: Federation, rng: Draws, answers: dict[int, State], lived: Iterator[Round]
) -> Iterator[Turn]:
    """A turn for every round in which client 0 takes part; the others train once it has answered."""
    for number in range(spec.rounds):
        if 0 in taking_part(number, spec.clients, spec.share, rng):
            turn = Turn(number, copy.deepcopy(current), own, _accept(number, current))
            yield turn
            if turn.answer is not None:
                answers[number] = turn.answer
        current.load_state_dict(next(lived).after)


def _accept(number: int, current: nn.Module) -> Callable[[State], State]:
    """Refuses at once, by name, what the round would refuse."""
    like = state_of(current)
    return lambda state: fitting(state, like, f"round {number}: the answer")


def _released(benchmark: Benchmark, victim: Victim, shared: dict) -> ReleasedModel:
    service, secret, answer = copy.deepcopy(victim.model), victim.secret, victim.defences.answer

    def query(images: Tensor) -> Tensor:
        with torch.set_grad_enabled(white):
            confidences = service(images).softmax(1)
            return confidences if answer is None else answer(confidences, rng)

    white, rng = benchmark.threat.access == "white", victim.rng
    if not white:
        shared["model"] = nn.Module()
    how, target = benchmark.auxiliary, int(secret.labels[0])
    known = None if how is None else degraded(secret.images, how, rng)
    return ReleasedModel(**shared, query=query, access=benchmark.threat.access, target=target, auxiliary=known)


def federation_of(benchmark: Benchmark) -> Federation:
    """The benchmark's federation; ConfigError where it has none."""
    if benchmark.federation is None:
        raise ConfigError(f"{benchmark.name}: what is seen is {benchmark.threat.sees!r}, which needs `federation`")
    return benchmark.federation


def _rounds(clients: list[Client], victim: Victim, spec: Federation, rng: Draws) -> Iterator[Round]:
    """The federation around the attack, from the victim's model on."""
    plan = Plan(range(spec.rounds), spec.share)
    return rounds(victim.model, clients, rule_named(spec.rule), rng, plan, victim.defences.aggregate)


def _honest(data: Labelled, spec: Federation, victim: Victim) -> Client:
    return honest(data, spec, victim.loss, victim.defences.local_step, victim.defences.message)


def _peers(spec: Federation, victim: Victim, seed: int, count: int) -> list[Client]:
    """So many honest clients, all of the secret spread over them."""
    return [_honest(part, spec, victim) for part in _parts(spec, victim, seed, count)]


def _parts(spec: Federation, victim: Victim, seed: int, count: int) -> list[Held]:
    """All of the secret spread over so many clients; ConfigError when an image would be nobody's."""
    if spec.clients < 2:
        raise ConfigError(
            f"federation.clients is {spec.clients}: a client that attacks, or is hidden among others, is not alone"
        )
    parts, reached = spread(victim.secret, spec, count, seed)
    if reached.share < 1:
        raise ConfigError(
            f"federation.partition {spec.partition!r} gives {sum(reached.sizes)} of {len(victim.secret.images)} secret "
            f"images to a client; of classes {', '.join(map(str, reached.missing_classes))} nobody holds any"
        )
    return parts


def _own(benchmark: Benchmark, secret: Secret, public: Public | None) -> Public:
    """The attacking client's own images: as many public ones as its peers have secret ones on average, at least one."""
    if public is None:
        raise ConfigError(
            f"{benchmark.name}: a client that attacks holds public images of its own; threat.knows lacks `public_data`"
        )
    share = max(1, len(secret.images) // max(1, federation_of(benchmark).clients - 1))
    return Public(public.images[:share], public.labels[:share])


def known_of(benchmark: Benchmark, data: int) -> LocalTraining | None:
    knows = "local_training" in benchmark.threat.knows
    return known_training(federation_of(benchmark), data) if knows else None


def _seed(victim: Victim) -> int:
    """From the clients' own randomness, what that of all rounds is derived from."""
    return int(torch.randint(2**62, (1,), generator=victim.rng))


_LEAKS = {
    Gradient: _gradient,
    ModelUpdate: _update,
    ModelSequence: _sequence,
    Participation: _participation,
    ReleasedModel: _released,
}
