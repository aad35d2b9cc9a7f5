"""Defences of a benchmark (`defence: {name: {setting: value}}`): one function each, which acts at one point.

A defence is a function marked with the point at which it acts; its settings are its keyword-only arguments. Adding one
is adding a function; one that lies elsewhere is named by its `file` (`own.py`). At a point, several act in the order in
which they stand here, those of files last and by name (a benchmark's hash knows no order):

network(model, rng) -> model                               the form of the network
local_step(model, loss, images, labels, rng) -> gradients  what a step of local training takes for the gradient
message({parameter: tensor}, rng) -> the same              what a client sends: a gradient, or its change of the model
aggregate(messages, rng) -> messages                       what the server sees of a round's messages
answer(confidences (N, classes), rng) -> the same          what a released model replies
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leakboard.config import Benchmark, ConfigError
from leakboard.config.benchmark import FILE
from leakboard.federation.clients import LocalStep, Sending
from leakboard.federation.rounds import Aggregate
from leakboard.victim.defences import aggregates, answers, forms, local_steps, messages, own, points
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
    acting: dict[str, list[Callable[..., Any]]] = {}
    for name, point, act in _named(benchmark):
        what, settings = f"{benchmark.name}: defence.{name}", dict(benchmark.defence[name])
        if benchmark.threat.sees not in POINTS[point]:
            raise ConfigError(f"{what} acts on the {point}, which {benchmark.threat.sees!r} does not come by")
        file = settings.pop(FILE, None)
        strengths = {key: value for key, value in settings.items() if isinstance(value, float)}
        _check(what, act, strengths)
        act = own.checked(file, point, act) if isinstance(file, Path) else act
        acting.setdefault(point, []).append(partial(act, **strengths))
    if len(acting.get("local_step", ())) > 1:
        raise ConfigError(f"{benchmark.name}: defence: a local step is replaced by one defence, not several")
    whole: dict[str, Any] = {point: acts[0] if len(acts) == 1 else _in_turn(acts) for point, acts in acting.items()}
    return Defences(**whole)


def _named(benchmark: Benchmark) -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """(name, point, function) of every defence, in the order in which they act."""
    files = {name: settings[FILE] for name, settings in benchmark.defence.items() if FILE in settings}
    if unknown := sorted(set(benchmark.defence) - set(files) - set(points.DEFENCES)):
        raise ConfigError(
            f"{benchmark.name}: defence: unknown {', '.join(unknown)}; there are: {', '.join(points.DEFENCES)}"
        )
    if taken := sorted(set(files) & set(points.DEFENCES)):
        raise ConfigError(f"{benchmark.name}: defence.{taken[0]} is known and has no `file`; call yours otherwise")
    yield from ((name, *points.DEFENCES[name]) for name in points.DEFENCES if name in benchmark.defence)
    for name, path in sorted(files.items()):
        yield (name, *own.own_defence(Path(str(path))))


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
