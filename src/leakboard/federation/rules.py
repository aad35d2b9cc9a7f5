"""How messages become the next model: one plain function a rule, found by its name.

A rule gets the state before the round and the checked messages, and returns the state after it. Integers, such as the
number of batches that batch norm has seen, have no mean: every rule takes the largest of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leakboard.config import ConfigError
from leakboard.federation.rounds import Message, Rule, State


def average(before: State, messages: Sequence[Message]) -> State:
    """FedAvg (McMahan et al. 2017): the mean of the models, weighted by the number of images, summed in float64."""
    total = sum(message.images for message in messages)

    def mean(key: str) -> Tensor:
        summed = sum(message.images * message.state[key].double() for message in messages)
        return torch.as_tensor(summed) / total

    return _merged(before, messages, {key: mean(key) for key, old in before.items() if old.is_floating_point()})


def median(before: State, messages: Sequence[Message]) -> State:
    """The coordinate-wise median (Yin et al. 2018), of an even number the mean of the middle two; counts no images."""

    def middle(key: str) -> Tensor:
        ranked = torch.stack([message.state[key].double() for message in messages]).sort(0).values
        return (ranked[(len(messages) - 1) // 2] + ranked[len(messages) // 2]) / 2

    return _merged(before, messages, {key: middle(key) for key, old in before.items() if old.is_floating_point()})


def _merged(before: State, messages: Sequence[Message], floats: State) -> State:
    """`floats` in the types of `before`, and of every integer entry the largest that was sent."""
    return {
        key: floats[key].to(old.dtype)
        if old.is_floating_point()
        else torch.stack([message.state[key] for message in messages]).amax(0)
        for key, old in before.items()
    }


RULES: dict[str, Rule] = {"average": average, "median": median}


def rule_named(name: str) -> Rule:
    """ConfigError lists the rules there are."""
    if name not in RULES:
        raise ConfigError(f"federation.rule: unknown {name!r}; there are: {', '.join(RULES)}")
    return RULES[name]
