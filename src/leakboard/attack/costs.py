"""How far the gradient of dummy images lies from the observed one, and the cotangent of that in closed form."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Outer(NamedTuple):
    """The gradient of a linear layer's weight as its factors: delta (B, out) and input (B, in); it is delta^T input.

    Never formed: its inner products follow from the factors, exactly. As a cotangent: the derivatives with respect to
    the two factors. A cost that may be given one says so with its attribute `takes_factors`.
    """

    delta: Tensor
    input: Tensor


LARGE = 2**18  # elements from which on memory traffic is what a step costs (make speed)

# (dummy gradient, observed gradient), one tensor or Outer per parameter -> (cost, its cotangent: dC/dg per parameter).
Cost = Callable[[Any, Any], tuple[Tensor, list[Any]]]


def squared_distance(got: Sequence[Tensor], observed: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """sum_l |g_l - g*_l|^2 (Zhu et al. 2019, equation 3).

    Takes no factors: |g|^2 - 2 <g, g*> + |g*|^2 loses near the optimum the digits that the difference keeps.
    """
    difference = [g - seen for g, seen in zip(got, observed, strict=True)]
    return torch.stack([_inner(d, d) for d in difference]).sum(), [2 * d for d in difference]


def cosine_distance(got: Sequence[Tensor | Outer], observed: Sequence[Tensor]) -> tuple[Tensor, list[Tensor | Outer]]:
    """1 - <g, g*> / (|g| |g*|), all parameters as one vector (Geiping et al. 2020, equation 4)."""
    weighed = [_weigh(g, seen) for g, seen in zip(got, observed, strict=True)]
    norm = torch.stack([square for square, _, _ in weighed]).sum().sqrt().clamp_min(1e-30)
    scale = 1 / (norm * torch.stack([_inner(seen, seen) for seen in observed]).sum().sqrt().clamp_min(1e-30))
    cosine = torch.stack([inner for _, inner, _ in weighed]).sum() * scale
    along = cosine / norm**2
    return 1 - cosine, [combine(along, scale) for _, _, combine in weighed]


@functools.cache
def where_observed(cost: Cost) -> Cost:
    """The cost of those entries of a gradient alone that are not zero in the observed one. It takes no factors."""

    def of_those(got: Sequence[Tensor], observed: Sequence[Tensor]) -> tuple[Tensor, list[Any]]:
        kept = [(seen != 0).to(seen) for seen in observed]
        value, cotangent = cost([g * there for g, there in zip(got, kept, strict=True)], observed)
        return value, [part * there for part, there in zip(cotangent, kept, strict=True)]

    return of_those


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """The sum of products; of large tensors as a dot product, which writes nothing in between."""
    if left.numel() < LARGE:
        return (left * right).sum()
    return torch.dot(left.flatten(), right.flatten())


cosine_distance.takes_factors = True  # type: ignore[attr-defined]


def _weigh(g: Tensor | Outer, seen: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor | Outer]]:
    """<g, g>, <g, seen>, and (a, b) -> the cotangent a g - b seen, pulled back to the factors of an `Outer`."""
    if isinstance(g, Tensor):
        return _inner(g, g), _inner(g, seen), lambda a, b: torch.addcmul(a * g, b, seen, value=-1)
    delta, x = g
    onto_x = x @ seen.T  # (B, out)
    deltas, inputs = delta @ delta.T, x @ x.T  # (B, B)

    def combine(a: Tensor, b: Tensor) -> Outer:
        return Outer(a * (inputs @ delta) - b * onto_x, a * (deltas @ x) - b * (delta @ seen))

    return (deltas * inputs).sum(), (delta * onto_x).sum(), combine
