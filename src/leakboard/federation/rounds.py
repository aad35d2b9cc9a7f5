"""One federation loop for everything: every round clients send messages, of which a rule makes the next model.

Clients, rules and what a defence does with messages are plain callables. What an observer sees of the rounds is not
decided here: a server looks at what it received, a client at the models, a live client writes its own message.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakboard.errors import Fault
from leakboard.rng import generator

State = dict[str, Tensor]
# client(a private copy of the global model, number of the round, rng) -> (state dict to send, images it stands for)
Client = Callable[[nn.Module, int, torch.Generator], tuple[State, int]]
# rng(number of the round, the client's place or a word) -> generator: no draw depends on what was drawn before
Draws = Callable[[int, int | str], torch.Generator]


class MessageError(Fault, ValueError):
    """A message that cannot be averaged; names the round, the client and the entry, what was found and expected."""


@dataclass(frozen=True, eq=False)
class Message:
    """What one client sends: its model after local training, and the number of images that it was trained on."""

    client: int
    state: State
    images: int


# rule(state before, messages) -> state after
Rule = Callable[[State, Sequence[Message]], State]
# aggregate(messages, rng) -> what the server gets to see of them
Aggregate = Callable[[Sequence[Message], torch.Generator], Sequence[Message]]


@dataclass(frozen=True, eq=False)
class Round:
    """One round. messages: as sent, by client in ascending order; received: what the server sees of them.

    `received` is `messages` unless a defence aggregates them on the way.
    """

    number: int
    before: State
    messages: tuple[Message, ...]
    after: State
    received: tuple[Message, ...]

    @property
    def clients(self) -> tuple[int, ...]:
        """Who took part."""
        return tuple(message.client for message in self.messages)

    def sent_by(self, client: int) -> Message | None:
        """The message of a client; None when it did not take part."""
        return next((message for message in self.messages if message.client == client), None)


def derived(*parts: object) -> Draws:
    """Generators that depend on `parts`, the round and the client alone, so that rounds may be taken up anywhere."""
    return lambda number, who: generator("round", *parts, number, who)


@dataclass(frozen=True)
class Plan:
    """Which rounds are lived through, by their numbers, and the share of the clients that takes part in each."""

    numbers: Sequence[int]
    share: float = 1.0


def rounds(
    model: nn.Module, clients: Sequence[Client], rule: Rule, rng: Draws, plan: Plan, aggregate: Aggregate | None = None
) -> Iterator[Round]:
    """Train a copy of `model`, in its own mode. What a round draws depends on its number alone.

    Every message is checked before any is averaged: one that does not fit, or is not finite, raises MessageError and
    ends the iteration. The model stands as the last round that was yielded left it.
    """
    if not clients:
        raise Fault("a federation has no clients, expected at least one")
    current = copy.deepcopy(model)
    for number in plan.numbers:
        before = state_of(current)
        present = taking_part(number, len(clients), plan.share, rng)
        messages = tuple(_message(place, clients[place], current, number, rng) for place in present)
        received = messages if aggregate is None else tuple(aggregate(messages, rng(number, "aggregate")))
        after = fitting(rule(before, received), before, f"round {number}: what the rule made of the messages")
        current.load_state_dict(after)
        yield Round(number, before, messages, after, received)


def taking_part(number: int, clients: int, share: float, rng: Draws) -> list[int]:
    """The places of the clients in round `number`, ascending: a `share` of all drawn at random, at least one."""
    wanted = max(1, round(share * clients))
    if wanted >= clients:
        return list(range(clients))
    return sorted(torch.randperm(clients, generator=rng(number, "taking part"))[:wanted].tolist())


def _message(place: int, client: Client, model: nn.Module, number: int, rng: Draws) -> Message:
    who = f"round {number}: the message of client {place}"
    sent = client(copy.deepcopy(model), number, rng(number, place))
    if not isinstance(sent, tuple) or len(sent) != 2:
        raise MessageError(f"{who} is a {type(sent).__name__}, expected (state dict, number of images)")
    state, images = sent
    if not isinstance(images, int) or images < 1:
        raise MessageError(f"{who} stands for {images!r} images, expected a whole number from 1 on")
    return Message(place, fitting(state, model.state_dict(), who), images)


def fitting(state: State, like: Mapping[str, Tensor], what: str) -> State:
    """A copy of `state` with the keys, device and float types of `like`. MessageError says what does not fit."""
    if not isinstance(state, Mapping):
        raise MessageError(f"{what} is a {type(state).__name__}, expected a state dict")
    missing, extra = sorted(like.keys() - state.keys()), sorted(map(str, state.keys() - like.keys()))
    if missing:
        raise MessageError(f"{what} lacks {_listed(missing)}, expected all keys of the global model")
    if extra:
        raise MessageError(f"{what} has the extra keys {_listed(extra)}, expected those of the global model alone")
    return {key: _entry(state[key], wanted, f"{what}: {key}") for key, wanted in like.items()}


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _entry(value: Tensor, wanted: Tensor, what: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise MessageError(f"{what} is a {type(value).__name__}, expected a tensor")
    if value.shape != wanted.shape:
        raise MessageError(f"{what} has shape {tuple(value.shape)}, expected {tuple(wanted.shape)}")
    if value.dtype != wanted.dtype and not (value.is_floating_point() and wanted.is_floating_point()):
        raise MessageError(f"{what} holds {value.dtype}, expected {wanted.dtype}")
    copied = value.detach().to(wanted.device, wanted.dtype, copy=True)
    broken = copied[~torch.isfinite(copied) & (copied != wanted)]  # a model may hold inf by design, and keep it
    if len(broken):
        raise MessageError(
            f"{what} holds {float(broken[0])} at {len(broken)} of {copied.numel()} places, expected finite"
        )
    return copied


def state_of(model: nn.Module) -> State:
    """A copy of the model's state dict."""
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def difference(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> State:
    """after - before for every key of `before`: of parameters what local training changed."""
    return {key: (after[key] - old).detach() for key, old in before.items()}


def update_of(model: nn.Module, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """after - before, one tensor per parameter of `model` in their order; of its weights only names are looked at."""
    return tuple(difference({name: before[name] for name, _ in model.named_parameters()}, after).values())
