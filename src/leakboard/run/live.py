"""Attacks that are clients of a Flower app: one that takes part with messages of its own, and one that only looks on.

No process of a node outlasts a round. So in every round the attack lives again through all global models that its node
has received, with the same seed, and its last answer is what is sent; what it would hand in by then comes beside it.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from leakboard.federation.clients import Remembering
from leakboard.federation.rounds import Client, State, fitting, update_of
from leakboard.run.attacker import Attacker
from leakboard.run.exchange import attempted
from leakboard.threat import ModelSequence, Participation, Public, Reconstruction, Seen, Turn

HandedIn = Callable[[int, Reconstruction], None]  # told the number of the round, and what the attack has by then
HOUR = 3600.0


def participant(attacker: Attacker, seen: Participation, own: Public, seed: int, handed_in: HandedIn) -> Remembering:
    """A client whose messages the attack writes, such as Hitaj's. seen: what it knows, its rounds aside; own: its data.

    RuntimeError for an attack that fails, which ends the round: under Flower a failed client.
    """

    def answer(states: Sequence[State], number: int, draws: Callable[[int], torch.Generator]) -> tuple[State, int]:
        turns = [_turn(seen.model, state, number - len(states) + 1 + place, own) for place, state in enumerate(states)]
        got = _attacked(attacker, dataclasses.replace(seen, turns=_once(turns)), seed)
        handed_in(number, got)
        return turns[-1].answer or dict(states[-1]), len(own.images)

    return Remembering(answer)


def peer(attacker: Attacker, seen: ModelSequence, client: Client, seed: int, handed_in: HandedIn) -> Remembering:
    """An honest client that looks on, and attacks what consecutive global models tell of its peers, once it has two.

    seen: what it knows, the models aside; RuntimeError for an attack that fails.
    """

    def answer(states: Sequence[State], number: int, draws: Callable[[int], torch.Generator]) -> tuple[State, int]:
        first = number - len(states) + 1
        sent = [client(_with(seen.model, state), first + at, draws(first + at)) for at, state in enumerate(states)]
        if len(states) > 1:
            pairs = zip(states[:-1], sent[:-1], strict=True)
            changes = [update_of(seen.model, before, mine) for before, (mine, _) in pairs]
            lived = dataclasses.replace(seen, models=list(states), own_update=changes)
            handed_in(number, _attacked(attacker, lived, seed))
        return sent[-1]

    return Remembering(answer)


def _turn(model: nn.Module, state: State, number: int, own: Public) -> Turn:
    accept = lambda sent: fitting(sent, state, f"round {number}: the answer")  # noqa: E731
    return Turn(number, _with(model, state), own, accept)


def _once(turns: list[Turn]) -> Callable[[], Iterator[Turn]]:
    lived = iter(turns)
    return lambda: lived


def _with(model: nn.Module, state: State) -> nn.Module:
    """A copy of the model with these weights."""
    copied = copy.deepcopy(model)
    copied.load_state_dict(state)
    return copied


def _attacked(attacker: Attacker, seen: Seen, seed: int) -> Reconstruction:
    got = attempted(attacker, [seen], [seed], seen.device, HOUR)
    ((handed_in, status),) = got.ends
    if status["status"] != "ok":
        raise RuntimeError(f"the attack {status['status']}: {status['reason']}")
    return handed_in
