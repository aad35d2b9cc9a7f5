"""L-BFGS without line search, guarded, on many problems at once: what DLG, iDLG and the Euclidean variant of IG use.

The step rule is that of the implementation which the papers used (a first step of min(1, 1/|g|_1) along -g, then steps
of length `rate`); the direction comes from the compact representation of the inverse Hessian (Byrd, Nocedal and
Schnabel 1994, theorem 2.2): four matrix-vector products where the two-loop recursion needs four hundred small ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leakboard.threat import due

# points (Q, D), the problems `which` (Q,) that they belong to -> (values (Q,), gradients (Q, D))
Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Observer = Callable[[int, Tensor, Tensor, Tensor], None]  # (step, points, values, which)


@dataclass
class Minimum:
    """Of each problem: the best point met (P, D), the value there, steps made, how often the guard restarted (P,).

    last: where it ended, (P, D).
    """

    point: Tensor
    value: Tensor
    last: Tensor
    steps: Tensor
    restarts: Tensor


class Curvature:
    """The last `history` pairs s (steps) and y (changes of the gradient) of each problem, and the Hessians they span.

    Zeros stand for a pair that a problem does not have and change nothing, so all problems share one window. The pairs
    lie in the dtype of the problem; their inner products, whose triangular matrix is inverted, in float64.
    """

    def __init__(self, start: Tensor, history: int) -> None:
        problems, size = start.shape
        self.history, self.count = history, 0
        self.s, self.y = (start.new_zeros(problems, 2 * history, size) for _ in range(2))
        self.sy, self.yy = (start.new_zeros(problems, 2 * history, 2 * history, dtype=torch.float64) for _ in range(2))
        self.scale = start.new_ones(problems, dtype=torch.float64)

    def add(self, step: Tensor, change: Tensor, kept: Tensor) -> None:
        """Remember a pair of each problem that `kept` (Q,) names; one without positive curvature is left out."""
        if self.count == 2 * self.history:
            self._move_to_front()
        kept = kept & ((step * change).sum(1) > 1e-10)
        last, window = self.count, slice(max(0, self.count + 1 - self.history), self.count + 1)
        self.s[:, last], self.y[:, last] = step * kept[:, None], change * kept[:, None]
        self.sy[:, window, last] = _product(self.y[:, last], self.s[:, window].mT).double()
        self.yy[:, window, last] = self.yy[:, last, window] = _product(self.y[:, last], self.y[:, window].mT).double()
        self.count += 1
        if bool(kept.all()):
            self.scale = self.sy[:, last, last] / self.yy[:, last, last]
        else:
            self._close_up(~kept)
            squared = torch.where(kept, self.yy[:, last, last], 1.0)
            self.scale = torch.where(kept, self.sy[:, last, last] / squared, self.scale)

    def _close_up(self, rows: Tensor) -> None:
        """Problems without a new pair keep their older ones: all move up by one place, into the new one."""
        last = self.count - 1
        old, new = slice(max(0, last - self.history), last), slice(max(0, last - self.history) + 1, last + 1)
        for pairs in (self.s, self.y):
            pairs[rows, new] = pairs[rows, old].clone()
            pairs[rows, old.start] = 0
        for square in (self.sy, self.yy):
            square[rows, new, new] = square[rows, old, old].clone()
            square[rows, old.start] = 0
            square[rows, :, old.start] = 0
        self.sy[rows, old.start, old.start] = 1

    def forget(self, lost: Tensor) -> None:
        """Drop every pair of the problems that `lost` (Q,) names."""
        for pairs in (self.s, self.y, self.yy, self.sy):
            pairs[lost] = 0
        self.sy[lost] += torch.eye(2 * self.history, dtype=self.sy.dtype, device=self.sy.device)
        self.scale = torch.where(lost, 1.0, self.scale)

    def choose(self, rows: Tensor) -> None:
        """Go on with these problems only."""
        self.s, self.y, self.sy, self.yy, self.scale = (
            part[rows] for part in (self.s, self.y, self.sy, self.yy, self.scale)
        )

    def _move_to_front(self) -> None:
        keep, half = slice(self.history, None), slice(0, self.history)
        for pairs in (self.s, self.y):
            pairs[:, half] = pairs[:, keep].clone()
        for square in (self.sy, self.yy):
            square[:, half, half] = square[:, keep, keep].clone()
        self.count = self.history

    def direction(self, gradient: Tensor) -> Tensor:
        """-H g, (Q, D) -> (Q, D)."""
        if self.count == 0:
            return -gradient
        window = slice(max(0, self.count - self.history), self.count)
        s, y, sy, yy = self.s[:, window], self.y[:, window], self.sy[:, window, window], self.yy[:, window, window]
        p, q = _product(gradient, s.mT).double(), _product(gradient, y.mT).double()
        scale = self.scale[:, None]
        w = torch.linalg.solve_triangular(sy, p[..., None], upper=True)[..., 0]  # reads the upper triangle only
        inner = sy.diagonal(dim1=1, dim2=2) * w + scale * (_product(w, yy) - q)
        v = torch.linalg.solve_triangular(sy.mT, inner[..., None], upper=False)[..., 0]
        w, v, scale = w.to(gradient), v.to(gradient), scale.to(gradient)
        return -(scale * (gradient - _product(w, y)) + _product(v, s))


def _product(vectors: Tensor, matrices: Tensor) -> Tensor:
    """(Q, n), (Q, n, m) -> (Q, m). As row times matrix: the other way round costs ten times as much on a CPU."""
    return torch.bmm(vectors[:, None], matrices)[:, 0]


class Search:
    """The state of the problems that are under way, row by row; `which` (Q,) says whose row it is."""

    ROWS = (
        *("which", "point", "value", "gradient", "first", "best", "best_value", "best_gradient"),
        *("rate", "lost", "done", "steps", "restarts"),
    )

    def __init__(self, objective: Objective, start: Tensor, rate: float, history: int) -> None:
        self.objective = objective
        self.which = torch.arange(len(start), device=start.device)
        self.point, self.memory = start, Curvature(start, history)
        self.value, self.gradient = objective(start, self.which)
        self.first = self.value
        self.best, self.best_value, self.best_gradient = self.point, self.value, self.gradient
        self.rate = torch.full_like(self.value, rate)
        self.lost = torch.ones_like(self.value, dtype=torch.bool)  # no history to go by: the next step is a first one
        self.done = torch.zeros_like(self.lost)
        self.steps, self.restarts = torch.zeros_like(self.which), torch.zeros_like(self.which)

    def step(self, enough: float) -> None:
        """One step of every problem that is not done, then see who arrived."""
        shortened = self.rate / self.gradient.abs().sum(1).clamp_min(1)
        length = torch.where(self.lost, shortened, self.rate)
        move = length[:, None] * self.memory.direction(self.gradient)
        point = self.point + move
        value, gradient = self.objective(point, self.which)
        sound = torch.isfinite(value) & (value <= 1e3 * self.first.abs()) & torch.isfinite(gradient).all(1)
        going = ~self.done
        self.steps += going
        if bool((sound & going).all()):
            self.memory.add(move, gradient - self.gradient, sound)
            self.lost = ~sound
        else:
            point, value, gradient = self._held_back(move, point, value, gradient, sound, going)
        self.point, self.value, self.gradient = point, value, gradient
        better = going & ~self.lost & (value < self.best_value)
        self.best = torch.where(better[:, None], point, self.best)
        self.best_gradient = torch.where(better[:, None], gradient, self.best_gradient)
        self.best_value = torch.where(better, value, self.best_value)
        self.done = self.done | (~self.lost & ((value <= enough) | (gradient.abs().amax(1) <= 1e-7)))

    def _held_back(
        self, move: Tensor, point: Tensor, value: Tensor, gradient: Tensor, sound: Tensor, going: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What blew up goes back to its best point with half the rate and no history; what is done stays put."""
        lost, moved = ~sound & going, sound & going
        # Zeros where nothing is kept: a mask alone would leave nan * 0 in the history.
        self.memory.add(move, torch.where(moved[:, None], gradient - self.gradient, 0), moved)
        self.memory.forget(lost)
        self.restarts, self.rate, self.lost = self.restarts + lost, torch.where(lost, self.rate / 2, self.rate), lost
        point = torch.where(moved[:, None], point, torch.where(lost[:, None], self.best, self.point))
        gradient = torch.where(moved[:, None], gradient, torch.where(lost[:, None], self.best_gradient, self.gradient))
        return point, torch.where(moved, value, self.value), gradient

    def choose(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self.memory.choose(rows)
        for name in self.ROWS:
            setattr(self, name, getattr(self, name)[rows])


def minimise(
    objective: Objective,
    start: Tensor,
    steps: int,
    *,
    rate: float = 1.0,
    history: int = 100,
    enough: float = 0.0,
    scale: Tensor | None = None,
    observe: Observer | None = None,
) -> Minimum:
    """At most `steps` steps from `start` (P, D); a problem ends early at a value <= `enough` or a vanishing gradient.

    scale (P,): what the values of each problem are measured in. The rule of the first step, what counts as curvature
    and as a vanishing gradient are absolute, so where values are small from the start, as a squared distance to the
    gradient of a trained network is, the search would end at once. Values come back in their own units.

    Guard: a value that is not finite, or a thousand times the first one, sends its search back to the best point met,
    with half the rate and no history. It therefore never returns a point that is worse than its start. Problems do not
    touch each other; those that are done are dropped. observe: called at steps 1, 2, 4, ...
    """
    unit = torch.ones_like(start[:, 0]) if scale is None else scale.to(start)
    search = Search(objective if scale is None else _measured_in(unit, objective), start, rate, history)
    found = Minimum(start.clone(), search.value.clone(), start.clone(), search.steps.clone(), search.restarts.clone())
    every = 1 if start.device.type == "cpu" else 10  # steps between two looks at who is done: each waits for the device
    for step in range(1, steps + 1):
        search.step(enough)
        if observe is not None and due(step):
            rows = ~search.lost & (search.steps == step)
            if bool(rows.any()):
                observe(step, search.point[rows], search.value[rows] * unit[search.which[rows]], search.which[rows])
        if step % every == 0 and bool(search.done.any()):
            _keep(found, search)
            search.choose(~search.done)
            if not len(search.which):
                break
    _keep(found, search)
    found.value *= unit
    return found


def _measured_in(unit: Tensor, objective: Objective) -> Objective:
    def measured(points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        values, gradients = objective(points, which)
        return values / unit[which], gradients / unit[which, None]

    return measured


def _keep(found: Minimum, search: Search) -> None:
    for kept, rows in (
        (found.point, search.best),
        (found.value, search.best_value),
        (found.last, search.point),
        (found.steps, search.steps),
        (found.restarts, search.restarts),
    ):
        kept[search.which] = rows
