"""L-BFGS without line search, guarded: what DLG, iDLG and the Euclidean variant of IG minimise with.

The step rule is that of the implementation which the papers used (a first step of min(1, 1/|g|_1) along -g, then steps
of length `rate`); the direction comes from the compact representation of the inverse Hessian (Byrd, Nocedal and
Schnabel 1994, theorem 2.2): four matrix-vector products where the two-loop recursion needs four hundred small ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]  # point (D,) -> (value, gradient (D,))
Observer = Callable[[int, Tensor, Tensor], None]  # (step, point, value)


@dataclass
class Minimum:
    """The best point met (D,), the value there, the steps made and how often the guard had to restart."""

    point: Tensor
    value: float
    steps: int
    restarts: int


class Curvature:
    """The last `history` pairs s (steps) and y (changes of the gradient) and the inverse Hessian that they span.

    The pairs lie in the dtype of the problem; their inner products, whose triangular matrix is inverted, in float64.
    """

    def __init__(self, start: Tensor, history: int) -> None:
        self.history, self.count = history, 0
        self.s = start.new_zeros(2 * history, len(start))
        self.y = start.new_zeros(2 * history, len(start))
        self.sy = start.new_zeros(2 * history, 2 * history, dtype=torch.float64)
        self.yy = torch.zeros_like(self.sy)

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember a pair; one without positive curvature is left out."""
        if float(step @ change) <= 1e-10:
            return
        if self.count == 2 * self.history:
            self._move_to_front()
        last = self.count
        self.s[last], self.y[last] = step, change
        self.count += 1
        window = slice(max(0, self.count - self.history), self.count)
        self.sy[window, last] = (self.s[window] @ change).double()
        self.yy[window, last] = self.yy[last, window] = (self.y[window] @ change).double()

    def _move_to_front(self) -> None:
        keep, half = slice(self.history, None), slice(0, self.history)
        for rows in (self.s, self.y):
            rows[half] = rows[keep].clone()
        for square in (self.sy, self.yy):
            square[half, half] = square[keep, keep].clone()
        self.count = self.history

    def direction(self, gradient: Tensor) -> Tensor:
        """-H g, (D,) -> (D,)."""
        if self.count == 0:
            return -gradient
        window = slice(max(0, self.count - self.history), self.count)
        s, y, sy, yy = self.s[window], self.y[window], self.sy[window, window], self.yy[window, window]
        upper, diagonal = sy.triu(), sy.diagonal()
        scale = diagonal[-1] / yy[-1, -1]
        p, q = (s @ gradient).double(), (y @ gradient).double()
        w = torch.linalg.solve_triangular(upper, p[:, None], upper=True)[:, 0]
        inner = diagonal * w + scale * (yy @ w) - scale * q
        v = torch.linalg.solve_triangular(upper.T, inner[:, None], upper=False)[:, 0]
        return -(scale.to(gradient) * (gradient - w.to(gradient) @ y) + v.to(gradient) @ s)


def minimise(
    objective: Objective,
    start: Tensor,
    steps: int,
    *,
    rate: float = 1.0,
    history: int = 100,
    enough: float = 0.0,
    observe: Observer | None = None,
) -> Minimum:
    """At most `steps` steps from `start` (D,); ends early at a value <= `enough` or a vanishing gradient.

    Guard: a value that is not finite, or a thousand times the first one, sends the search back to the best point met,
    with half the rate and no history. It therefore never returns a point that is worse than its start.
    """
    point = best = start
    value, gradient = objective(point)
    first = best_value = float(value)
    best_gradient, memory, fresh, restarts, step = gradient, Curvature(start, history), True, 0, 0
    for step in range(1, steps + 1):
        length = min(1.0, 1.0 / max(float(gradient.abs().sum()), 1e-30)) * rate if fresh else rate
        move = length * memory.direction(gradient)
        new_value, new_gradient = objective(point + move)
        now = float(new_value)
        if not math.isfinite(now) or now > 1e3 * abs(first) or not bool(torch.isfinite(new_gradient).all()):
            restarts, rate, fresh = restarts + 1, rate / 2, True
            point, gradient, memory = best, best_gradient, Curvature(start, history)
            continue
        memory.add(move, new_gradient - gradient)
        point, gradient, fresh = point + move, new_gradient, False
        if now < best_value:
            best, best_value, best_gradient = point, now, gradient
        if observe is not None:
            observe(step, point, new_value)
        if now <= enough or float(gradient.abs().max()) <= 1e-7:
            break
    return Minimum(best, best_value, step, restarts)
