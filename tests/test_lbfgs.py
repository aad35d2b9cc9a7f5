"""L-BFGS: the trajectory of PyTorch's own optimiser, and a guard that never makes things worse."""

from __future__ import annotations

import math

import pytest
import torch

from leakboard.attack import lbfgs
from leakboard.threat import due

DRAW = torch.Generator().manual_seed(0)
SIZE = 40
ROTATION = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=DRAW, dtype=torch.float64))[0]
HESSIAN = ROTATION @ torch.diag(torch.logspace(-2, 0, SIZE, dtype=torch.float64)) @ ROTATION.T
DESIGN = torch.randn(60, SIZE, generator=DRAW, dtype=torch.float64)
SIGNS = torch.sign(torch.randn(60, generator=DRAW, dtype=torch.float64))


def minimise(objective, start, steps: int, observe=None, **more):
    """One problem: objective (D,) -> (value, gradient (D,))."""

    def many(points, which):
        values, gradients = zip(*(objective(x) for x in points), strict=True)
        return torch.stack(values), torch.stack(gradients)

    watch = None if observe is None else lambda step, points, values, which: observe(step, points[0], values[0])
    found = lbfgs.minimise(many, start[None], steps, observe=watch, **more)
    return lbfgs.Minimum(found.point[0], float(found.value), found.last[0], int(found.steps), int(found.restarts))


def quadratic(x):
    return 0.5 * x @ HESSIAN @ x - x.sum() + 1e3  # the guard knows values relative to the first


def rosenbrock(x):
    """Chained and flattened, so that unit steps without line search stay bounded."""
    return (
        0.5 * (x[1:] - x[:-1].square()).square() + 0.1 * (1 - x[:-1]).square()
    ).sum() + 100  # it spikes once on the way


def logistic(x):
    return torch.nn.functional.softplus(-SIGNS * (DESIGN @ x)).mean() + 1e-3 * x.square().sum()


PROBLEMS = {"quadratic": quadratic, "rosenbrock": rosenbrock, "logistic": logistic}


def with_gradient(function, visited: list | None = None):
    def objective(x):
        free = x.detach().clone().requires_grad_()
        value = function(free)
        (gradient,) = torch.autograd.grad(value, free)
        if visited is not None:
            visited.append(x.detach().clone())
        return value.detach(), gradient

    return objective


def torch_trajectory(function, start, steps: int, rate: float, history: int):
    """Every point at which torch.optim.LBFGS evaluates, without line search and without its early ends."""
    x, visited = start.clone().requires_grad_(), []
    optimiser = torch.optim.LBFGS(
        [x], rate, steps + 1, steps + 2, tolerance_grad=0.0, tolerance_change=0.0, history_size=history
    )

    def closure():
        optimiser.zero_grad()
        value = function(x)
        value.backward()
        visited.append(x.detach().clone())
        return value

    optimiser.step(closure)
    return visited[: steps + 1]


@pytest.mark.parametrize("history", [3, 10, 100])
@pytest.mark.parametrize("name", PROBLEMS)
def test_trajectory_is_that_of_torch(name, history):
    start = 0.3 * torch.randn(SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours: list[torch.Tensor] = []
    found = minimise(with_gradient(PROBLEMS[name], ours), start, 35, history=history)
    theirs = torch_trajectory(PROBLEMS[name], start, 35, 1.0, history)
    assert len(ours) == len(theirs) == 36 and found.restarts == 0 and found.steps == 35
    for step, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        assert float((mine - other).abs().max()) < 1e-6, f"step {step}"
    assert float((ours[-1] - ours[-2]).abs().max()) > 1e-7, "the comparison has run on into the minimum"


def test_rate_scales_steps_as_in_torch():
    start = torch.ones(SIZE, dtype=torch.float64)
    ours: list[torch.Tensor] = []
    minimise(with_gradient(logistic, ours), start, 30, rate=0.3, history=10)
    for mine, other in zip(ours, torch_trajectory(logistic, start, 30, 0.3, 10), strict=True):
        assert float((mine - other).abs().max()) < 1e-6


@pytest.mark.parametrize("hole", [math.nan, math.inf, 1e9])
def test_guard_returns_from_where_no_value_is(hole):
    """Beyond |x| = 2 there is nothing; the first unit steps land there."""

    def function(x):
        return 5 * x.square().sum() + x.sum() if float(x.detach().abs().max()) < 2 else x.abs().sum() * hole

    start = torch.full((4,), 1.5, dtype=torch.float64)
    tried: list[torch.Tensor] = []
    found = minimise(with_gradient(function, tried), start, 40, rate=40.0)
    assert any(float(x.abs().max()) >= 2 for x in tried)
    assert found.restarts >= 1 and math.isfinite(found.value) and bool(torch.isfinite(found.point).all())
    assert found.value < float(function(start)) and found.value == pytest.approx(float(function(found.point)))


def test_never_worse_than_the_start():
    """A function that nothing but its start can be evaluated at."""
    start = torch.zeros(3)

    def objective(x):
        return (x.sum() if torch.equal(x, start) else torch.tensor(math.nan)), torch.ones(3)

    found = minimise(objective, start, 10)
    assert torch.equal(found.point, start) and found.value == 0 and found.restarts == 10 == found.steps


def test_a_gradient_that_is_not_finite_is_guarded_too():
    def objective(x):
        away = bool((x != 1).any())
        return x.sum(), torch.full((2,), math.nan) if away else torch.ones(2)

    found = minimise(objective, torch.ones(2), 5)
    assert found.restarts == 5 and torch.equal(found.point, torch.ones(2))


def test_ends_at_enough_and_counts_its_evaluations():
    start, evaluated, steps = torch.ones(SIZE, dtype=torch.float64), [], []
    objective = with_gradient(lambda x: x.square().sum() + x.pow(4).sum(), evaluated)
    found = minimise(objective, start, 200, enough=1e-3, observe=lambda step, x, value: steps.append(step))
    assert found.value <= 1e-3 and found.steps < 50
    assert len(evaluated) == found.steps + 1 and steps == [step for step in range(1, found.steps + 1) if due(step)]
    assert minimise(with_gradient(quadratic), start, 0).steps == 0


def test_ends_where_the_gradient_vanishes():
    found = minimise(with_gradient(lambda x: x.square().sum()), torch.ones(5, dtype=torch.float64), 1000)
    assert found.steps < 20 and found.value < 1e-14


def test_returns_the_best_point_and_not_the_last():
    """Stopped at the spike that Rosenbrock's function throws the search up to."""
    start = 0.3 * torch.randn(SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = [float(rosenbrock(x)) for x in torch_trajectory(rosenbrock, start, 35, 1.0, 10)]
    spike = values.index(max(values))
    found = minimise(with_gradient(rosenbrock), start, spike, history=10)
    assert found.value == pytest.approx(min(values[:spike]), abs=1e-6) and found.value < values[spike] - 100
    assert found.value == pytest.approx(float(rosenbrock(found.point)))


def test_problems_do_not_touch_each_other():
    """Of five: one arrives at once, one blows up again and again, the others go on; each as if it were alone."""
    rng = torch.Generator().manual_seed(3)
    starts = 0.3 * torch.randn(5, SIZE, generator=rng, dtype=torch.float64)
    starts[1] = 0

    def walled(x):  # downhill into where nothing is
        value = 100 - x.sum()
        return value if float(x.detach().abs().max()) < 0.9 else value * math.nan

    functions = [rosenbrock, lambda x: x.square().sum(), logistic, walled, rosenbrock]

    def many(points, which):
        found = [with_gradient(functions[index])(x) for index, x in zip(which.tolist(), points, strict=True)]
        return torch.stack([value for value, _ in found]), torch.stack([gradient for _, gradient in found])

    together = lbfgs.minimise(many, starts, 60, history=10)
    assert together.steps.tolist()[1] == 1 and int(together.restarts[3]) > 0
    for index, function in enumerate(functions):
        alone = minimise(with_gradient(function), starts[index], 60, history=10)
        assert (alone.steps, alone.restarts) == (int(together.steps[index]), int(together.restarts[index]))
        assert float((alone.point - together.point[index]).abs().max()) < 1e-8, f"problem {index}"
        assert alone.value == pytest.approx(float(together.value[index]), rel=1e-9, abs=1e-12)
