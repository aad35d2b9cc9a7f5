"""The five points at which a defence acts, and the defences that are known by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

TRAINED = ("gradient", "update", "sequence", "participation")
# point -> the kinds of observation in which something happens there
POINTS = {
    "network": (*TRAINED, "released"),
    "local_step": TRAINED,
    "message": TRAINED,
    "aggregate": TRAINED,
    "answer": ("released",),
}


class Defence(NamedTuple):
    """A defence and the point at which it acts."""

    point: str
    act: Callable[..., Any]


DEFENCES: dict[str, Defence] = {}


def acts_on(point: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Marks a function as the defence of its name, which acts at `point`."""

    def mark(act: Callable[..., Any]) -> Callable[..., Any]:
        DEFENCES[act.__name__] = Defence(point, act)
        return act

    return mark
