"""Defences of a benchmark (`defence: {name: {setting: value}}`): one function each, which acts at one point.

A defence is a function marked with the point at which it acts; its settings are its keyword-only arguments. Adding one
is adding a function. At a point, several act in the order in which they stand here (a benchmark's hash knows no order):

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
from leakboard.federation.rounds import Aggregate
from leakboard.victim.defences import aggregates, answers, forms, local_steps, messages, points
from leakboard.victim.defences.points import POINTS, acts_on

__all__ = ["Defences", "acts_on", "aggregates", "answers", "defences_of", "forms", "local_steps", "messages"]


class Defences(NamedTuple):
    """What acts at each point in a benchmark; None where nothing does."""

    network: Callable[[nn.Module, torch.Generator], nn.Module] | None = None
    local_step: LocalStep | None = None
    message: Sending | None = None
    aggregate: Aggregate | None = None
    answer: Callable[[Tensor, torch.Generator], Tensor] | None = None


def defences_of(benchmark: Benchmark) -> Defences:
    """What acts in a benchmark. ConfigError in one line: a name, setting or value that does not fit."""
    if unknown := sorted(set(benchmark.defence) - set(points.DEFENCES)):
        raise ConfigError(
            f"{benchmark.name}: defence: unknown {', '.join(unknown)}; there are: {', '.join(points.DEFENCES)}"
        )
    acting: dict[str, list[Callable[..., Any]]] = {}
    for name, (point, act) in points.DEFENCES.items():
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
