"""A defence of one's own: a file with one function, named after the point at which it acts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from leakboard.config import ConfigError
from leakboard.config.own import place
from leakboard.models.own import module_of

# point -> what its function takes; settings are keyword-only arguments after these
TAKES = {
    "network": ("model", "rng"),
    "local_step": ("model", "loss", "images", "labels", "rng"),
    "message": ("tensors", "rng"),
    "aggregate": ("messages", "rng"),
    "answer": ("confidences", "rng"),
}


def form_of(point: str) -> str:
    return f"{point}({', '.join(TAKES[point])})"


def own_defence(path: Path) -> tuple[str, Callable[..., Any]]:
    """(the point, the function) of the file at `path`, which starts at the checkout where it is relative.

    ConfigError names the file, what was found and what was expected.
    """
    file = place(path)
    wanted = "one function of " + ", ".join(map(form_of, TAKES))
    module = module_of(file, wanted, ConfigError)
    found = [point for point in TAKES if inspect.isfunction(getattr(module, point, None))]
    if len(found) != 1:
        raise ConfigError(f"{file} defines {' and '.join(found) or 'no function of a point'}, expected {wanted}")
    (point,), act = found, getattr(module, found[0])
    free = [p for p in inspect.signature(act).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    if len(free) != len(TAKES[point]) or any(p.kind is not p.POSITIONAL_OR_KEYWORD for p in free):
        raise ConfigError(
            f"{file} defines {point}{inspect.signature(act)}, expected {form_of(point)}, settings after *"
        )
    return point, act


def checked(path: Path, point: str, act: Callable[..., Any]) -> Callable[..., Any]:
    """The function, of which every error and every answer of another form is a ConfigError that names the file."""

    def acting(*given: Any, **settings: Any) -> Any:
        try:
            got = act(*given, **settings)
        except Exception as error:
            raise ConfigError(f"{place(path)}: {point} raised {type(error).__name__}: {error}") from error
        if wanted := _wanted(point, given, got):
            raise ConfigError(f"{place(path)}: {point} returned {type(got).__name__}, expected {wanted}")
        return got

    return partial(acting)


def _wanted(point: str, given: tuple[Any, ...], got: Any) -> str:
    """What should have been returned; nothing where it was."""
    first = given[0]
    if point == "network":
        return "" if isinstance(got, nn.Module) else "a torch.nn.Module"
    if point == "answer":
        return "" if _alike([got], [first]) else f"confidences of shape {tuple(first.shape)}"
    if point == "aggregate":
        return "" if isinstance(got, Sequence) and len(got) else "messages"
    if point == "local_step":
        parameters = list(first.parameters())
        fits = isinstance(got, Sequence) and _alike(got, parameters)
        return "" if fits else f"{len(parameters)} tensors, of the shapes of the parameters"
    fits = isinstance(got, Mapping) and list(got) == list(first) and _alike(list(got.values()), list(first.values()))
    return "" if fits else "tensors of the same names, in the same order, and shapes"


def _alike(got: Sequence[Any], wanted: Sequence[Tensor]) -> bool:
    return len(got) == len(wanted) and all(
        isinstance(one, Tensor) and one.shape == other.shape for one, other in zip(got, wanted, strict=True)
    )
