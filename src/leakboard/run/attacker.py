"""An attack as the runner knows it: a file and settings. Whatever it does, it does on the other side of the border."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from torch import nn

from leakboard.attack.contract import AttackError
from leakboard.attack.crafted import built, refuse_misfit
from leakboard.attack.inside import Task
from leakboard.attack.wire import plain
from leakboard.config import Benchmark, digest
from leakboard.config.recipes import Recipe
from leakboard.record.trial_lines import attack_sha
from leakboard.run.box import ask
from leakboard.threat import Public

RECIPES = {recipe.kind: recipe for recipe in get_args(Recipe)}


class CraftError(AttackError):
    """A malicious server could not craft what it sends out."""


@dataclass(frozen=True)
class Attacker:
    """path: of the attack's file. settings: of its dataclass. AttackError says what is wrong with either."""

    path: Path
    settings: dict[str, Any] = field(default_factory=dict)

    def offers(self) -> tuple[list[str], list[str]]:
        """(names of the kinds of `Seen` that it works on, names of the optional methods that it has)."""
        return _offers(self.path, attack_sha(self.path), _Frozen(self.settings))

    def skips(self, benchmark: Benchmark) -> str | None:
        """Its own reason not to run on a benchmark."""
        return self._says("skips", benchmark)

    def prior(self, benchmark: Benchmark, trial: int = 0) -> Recipe | None:
        """The recipe of what it wants trained on public images, for this trial."""
        said = self._says("prior", benchmark, trial)
        if said is None:
            return None
        try:
            kind = RECIPES[said.pop("kind")]
            return kind.model_validate(said)
        except (KeyError, ValidationError, AttributeError) as error:
            raise AttackError(f"{self.path}: prior: no recipe, {error}") from None

    def craft(self, model: nn.Module, public: Public | None, seed: int, shape: tuple[int, ...]) -> nn.Module:
        """What it sends out as a malicious server, built on this side; the model as it is if it crafts nothing.

        shape: of an image. CraftError unless the victim can use it.
        """
        if "craft" not in self.offers()[1]:
            return model
        try:
            header, state = ask(self.path, Task("craft", self.settings, (model, public), (seed,)))
            crafted = built(dict(header["end"]), state, model)
            refuse_misfit(crafted, model, shape)
        except (AttackError, ValueError, TypeError, AttributeError) as error:
            raise CraftError(plain(error)) from None
        return crafted

    def _says(self, method: str, benchmark: Benchmark, trial: int = 0) -> Any:
        if method not in self.offers()[1]:
            return None
        said = _said(self.path, attack_sha(self.path), _Frozen(self.settings), method, _Asked(benchmark), trial)
        return dict(said) if isinstance(said, dict) else said


class _Frozen(dict):
    """Settings as a key of a cache."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(digest(self))


class _Asked:
    """A benchmark as a key of a cache."""

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark, self.key = benchmark, (benchmark.name, benchmark.scale, benchmark.hash)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self.key == other.key


@functools.lru_cache(maxsize=256)
def _offers(path: Path, sha: str, settings: _Frozen) -> tuple[list[str], list[str]]:
    header, _ = ask(path, Task("kinds", dict(settings)))
    kinds, has = header["end"], header.get("has")
    if not isinstance(kinds, list) or not isinstance(has, list):
        raise AttackError(f"{path}: kinds: no list of kinds and methods")
    return [plain(kind) for kind in kinds], [plain(name) for name in has]


@functools.lru_cache(maxsize=1024)
def _said(path: Path, sha: str, settings: _Frozen, method: str, asked: _Asked, trial: int) -> Any:
    return ask(path, Task(method, dict(settings), (asked.benchmark, trial)))[0]["end"]
