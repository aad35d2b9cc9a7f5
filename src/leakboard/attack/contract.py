"""What an attack is, and how a file becomes one.

An attack is a frozen dataclass of hyper-parameters with a method `reconstruct(self, seen, rng)`. The annotation of
`seen` is its registration: it names the kind of observation that the attack works on. Nothing else is registered.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Generator, nn

from leakboard.errors import Fault
from leakboard.threat import Public, Reconstruction, Seen


class AttackError(Fault, ValueError):
    """A file that is no attack, or settings that the attack does not have."""


class Attack(Protocol):
    """The one method that every attack has.

    Optional, found by name: `skips(benchmark) -> str | None` (a reason, shown on the board), `craft(model, public, rng)
    -> Module` (a malicious server: what it sends out), `prior(benchmark) -> Recipe` (what it needs trained on public
    images, handed over as `seen.prior`; as `prior(benchmark, trial)` one for every trial, so that trials count priors),
    `reconstruct_many(seen: list, rng: list) -> list[Reconstruction]` (many trials as one computation).
    """

    def reconstruct(self, seen: Any, rng: Generator) -> Reconstruction: ...


def load(path: Path) -> type[Attack]:
    """The one class with a `reconstruct` that the file at `path` defines. AttackError says what is wrong with it."""
    if not path.is_file():
        raise AttackError(f"{path} does not exist")
    name = f"leakboard_attack_{path.resolve().parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AttackError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise AttackError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    classes = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == name]
    found = [c for c in classes if hasattr(c, "reconstruct")]
    if len(found) != 1:
        raise AttackError(f"{path} defines {len(found)} classes with a method `reconstruct`, expected one")
    try:
        accepts(found[0])
    except AttackError as error:
        raise AttackError(f"{path}: {error}") from None
    return found[0]


def accepts(attack: type[Attack]) -> tuple[type[Seen], ...]:
    """The kinds of observation the attack works on: the annotation of `seen`, one kind or several with `|`."""
    annotation = typing.get_type_hints(attack.reconstruct).get("seen")
    kinds = typing.get_args(annotation) or (annotation,)
    if not all(inspect.isclass(kind) and issubclass(kind, Seen) for kind in kinds):
        raise AttackError(f"{attack.__name__}.reconstruct: `seen` is annotated {annotation}, expected a kind of Seen")
    return kinds


def configure(attack: type[Attack], settings: dict[str, Any]) -> Attack:
    """The attack with these hyper-parameters. AttackError names an unknown one."""
    fields: set[str] = (
        {field.name for field in dataclasses.fields(attack)} if dataclasses.is_dataclass(attack) else set()
    )
    unknown = set(settings) - fields
    if unknown:
        raise AttackError(f"{attack.__name__} has no setting {sorted(unknown)}; it has: {', '.join(sorted(fields))}")
    try:
        return attack(**settings)
    except (TypeError, ValueError) as error:
        raise AttackError(f"{attack.__name__}: {error}") from error


def craft(attack: Attack, model: nn.Module, public: Public | None, rng: Generator) -> nn.Module:
    """What a malicious server sends out: the attack's own choice, or the model as it is."""
    if not hasattr(attack, "craft"):
        return model
    try:
        return attack.craft(model, public, rng)
    except Exception as error:
        raise AttackError(f"{type(attack).__name__}.craft: {type(error).__name__}: {error}") from error


def says(attack: Attack, method: str, benchmark: Any, trial: int = 0) -> Any:
    """What the attack says of a benchmark, by its optional method `skips` or `prior`; None if it has none.

    A method that takes a second argument is told the trial.
    """
    if not hasattr(attack, method):
        return None
    try:
        asked = getattr(attack, method)
        return asked(*(benchmark, trial)[: len(inspect.signature(asked).parameters)])
    except Exception as error:
        raise AttackError(f"{type(attack).__name__}.{method}: {type(error).__name__}: {error}") from error


def reconstruct(attack: Attack, seen: Sequence[Seen], rngs: Sequence[Generator]) -> list[Reconstruction]:
    """One trial, or many at once if the attack offers that; ValueError unless there is one answer to each."""
    if len(seen) == 1:
        return [attack.reconstruct(seen[0], rngs[0])]
    if not hasattr(attack, "reconstruct_many"):
        raise AttackError(f"{type(attack).__name__} has no `reconstruct_many` and takes one trial at a time")
    got = attack.reconstruct_many(list(seen), list(rngs))
    if len(got) != len(seen):
        raise ValueError(f"{len(got)} reconstructions for {len(seen)} trials")
    return list(got)
