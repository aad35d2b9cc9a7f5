"""Defences of a benchmark (`defence: {name: {setting: value}}`): one function each, which acts at one point.

A defence is a function marked with the point at which it acts; its settings are its keyword-only arguments. Adding one
is adding a function. At a point, several act in the order of this file (a benchmark's hash knows no order):

network(model, rng) -> model                               the form of the network
local_step(model, loss, images, labels, rng) -> gradients  what a step of local training takes for the gradient
message({parameter: tensor}, rng) -> the same              what a client sends: a gradient, or its change of the model
aggregate(messages, rng) -> messages                       what the server sees of a round's messages
answer(confidences (N, classes), rng) -> the same          what a released model replies
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leakboard.config import Benchmark, ConfigError
from leakboard.federation.clients import LocalStep, Sending
from leakboard.federation.rounds import Aggregate, State

TRAINED = ("gradient", "update", "sequence", "participation")
# point -> the kinds of observation in which something happens there
POINTS = {
    "network": (*TRAINED, "released"),
    "local_step": TRAINED,
    "message": TRAINED,
    "aggregate": ("update", "sequence", "participation"),
    "answer": ("released",),
}


class Defence(NamedTuple):
    """A defence and the point at which it acts."""

    point: str
    act: Callable[..., Any]


class Defences(NamedTuple):
    """What acts at each point in a benchmark; None where nothing does."""

    network: Callable[[nn.Module, torch.Generator], nn.Module] | None = None
    local_step: LocalStep | None = None
    message: Sending | None = None
    aggregate: Aggregate | None = None
    answer: Callable[[Tensor, torch.Generator], Tensor] | None = None


DEFENCES: dict[str, Defence] = {}


def acts_on(point: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Marks a function as the defence of its name, which acts at `point`."""

    def mark(act: Callable[..., Any]) -> Callable[..., Any]:
        DEFENCES[act.__name__] = Defence(point, act)
        return act

    return mark


@acts_on("message")
def gaussian_noise(tensors: State, rng: torch.Generator, *, deviation: float) -> State:
    """Gaussian noise of this standard deviation on every entry, drawn on the CPU; 0 leaves every bit as it is."""
    if not deviation:
        return tensors
    noise = {key: torch.randn(tensor.shape, generator=rng, dtype=tensor.dtype) for key, tensor in tensors.items()}
    return {key: tensor + deviation * noise[key].to(tensor.device) for key, tensor in tensors.items()}


@acts_on("answer")
def rounding(confidences: Tensor, rng: torch.Generator, *, step: float) -> Tensor:
    """Confidences rounded to multiples of `step`; 0 leaves every bit as it is."""
    return (confidences / step).round() * step if step else confidences


def defences_of(benchmark: Benchmark) -> Defences:
    """What acts in a benchmark. ConfigError in one line: a name, setting or value that does not fit."""
    if unknown := sorted(set(benchmark.defence) - set(DEFENCES)):
        raise ConfigError(f"{benchmark.name}: defence: unknown {', '.join(unknown)}; there are: {', '.join(DEFENCES)}")
    acting: dict[str, list[Callable[..., Any]]] = {}
    for name, (point, act) in DEFENCES.items():
        if name in benchmark.defence:
            what, settings = f"{benchmark.name}: defence.{name}", benchmark.defence[name]
            if benchmark.threat.sees not in POINTS[point]:
                raise ConfigError(f"{what} acts on the {point}, which {benchmark.threat.sees!r} does not come by")
            _check(what, act, settings)
            acting.setdefault(point, []).append(partial(act, **settings))
    if len(acting.get("local_step", ())) > 1:
        raise ConfigError(f"{benchmark.name}: defence: a local step is replaced by one defence, not several")
    whole: dict[str, Any] = {point: acts[0] if len(acts) == 1 else _in_turn(acts) for point, acts in acting.items()}
    return Defences(**whole)


def _check(what: str, act: Callable[..., Any], settings: dict[str, float]) -> None:
    """ConfigError when the settings are not those of the function, or a value is negative or not finite."""
    known = {name: p for name, p in inspect.signature(act).parameters.items() if p.kind is p.KEYWORD_ONLY}
    needed = {name for name, parameter in known.items() if parameter.default is parameter.empty}
    for words, names in (("has no setting", set(settings) - set(known)), ("lacks", needed - set(settings))):
        if names:
            raise ConfigError(f"{what} {words} {', '.join(sorted(names))}; its settings: {', '.join(known)}")
    for name, value in settings.items():
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{what}.{name} is {value}, expected a number from 0 on")


def _in_turn(acts: list[Callable[..., Any]]) -> Callable[[Any, torch.Generator], Any]:
    """Several acts of one point as one: each works on what the one before it left."""

    def act(value: Any, rng: torch.Generator) -> Any:
        for one in acts:
            value = one(value, rng)
        return value

    return act
