"""Every execution of gradient matching computes what the plain one computes, for every network."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_mathematics import COSTS, TINY, tiny_seen
from torch import Tensor, nn

from leakboard.attack.costs import Outer, cosine_distance, squared_distance
from leakboard.attack.matching import Matching
from leakboard.attack.step import LARGE, Factors
from leakboard.models import NETWORKS
from leakboard.rng import seeded
from leakboard.threat import BudgetSpent, Gradient

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
PROBLEMS = 3


def problems(name: str, kind: torch.dtype, execution: str) -> list[Gradient]:
    """Different networks of one architecture, with different observations."""
    found = []
    for number in range(PROBLEMS):
        seen = tiny_seen(name, kind)
        with seeded("another", name, number), torch.no_grad():
            for parameter in seen.model.parameters():
                parameter.mul_(1 + 0.05 * torch.randn_like(parameter))
        found.append(dataclasses.replace(seen, execution=execution))
    return found


def start(name: str, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    images = torch.rand(PROBLEMS, 2, *TINY[name][0], generator=rng, dtype=torch.float64).to(kind)
    return images, torch.randn(PROBLEMS, 2, 4, generator=rng, dtype=torch.float64).to(kind)


def one_step(name: str, cost: str, kind: torch.dtype, execution: str, which: Tensor | None = None) -> list[Tensor]:
    """Cost and derivatives with respect to images and label logits."""
    precision = "float64" if kind is torch.float64 else "float32"
    matching = Matching(problems(name, kind, execution), COSTS[cost], precision)
    images, logits = (part if which is None else part[which] for part in start(name, kind))
    images, logits = images.requires_grad_(), logits.requires_grad_()
    value, derivatives = matching(images, logits.softmax(2), [images, logits], which)
    return [value, *derivatives]


def close(mine: Tensor, theirs: Tensor, tolerance: float) -> bool:
    return float((mine - theirs).norm()) <= tolerance * float(theirs.norm()) and float(theirs.norm()) > 0


@pytest.mark.parametrize("kind", TOLERANCE, ids=str)
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_stacked_is_the_loop(name, cost, kind):
    for mine, theirs in zip(one_step(name, cost, kind, "stacked"), one_step(name, cost, kind, "loop"), strict=True):
        for problem in range(PROBLEMS):
            assert close(mine[problem], theirs[problem], TOLERANCE[kind])


@pytest.mark.parametrize(("name", "cost"), [("lenet_sigmoid", "squared"), ("cnn", "cosine")])
def test_compiled_is_the_loop(name, cost):
    """Two networks stand for all: compiling takes 10 s each, and whoever chooses an execution measures this again."""
    for mine, theirs in zip(
        one_step(name, cost, torch.float32, "compiled"), one_step(name, cost, torch.float32, "loop"), strict=True
    ):
        for problem in range(PROBLEMS):
            assert close(mine[problem], theirs[problem], 1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a CUDA device")
@pytest.mark.parametrize("name", NETWORKS)
def test_cuda_graph_is_the_loop(name):
    found = []
    for execution in ("cuda_graph", "loop"):
        seen = [move(one, "cuda") for one in problems(name, torch.float32, execution)]
        images, logits = (part.cuda().requires_grad_() for part in start(name, torch.float32))
        matching = Matching(seen, cosine_distance)
        for _ in range(3):  # recorded, then replayed
            found.append(matching(images, logits.softmax(2), [images])[1][0])
    for replay in found[:3]:
        assert close(replay, found[-1], 1e-4)


def move(seen: Gradient, device: str) -> Gradient:
    gradient = tuple(g.to(device) for g in seen.gradient)
    return dataclasses.replace(seen, model=seen.model.to(device), gradient=gradient)


@pytest.mark.parametrize("execution", ["loop", "stacked", "compiled"])
def test_some_of_the_problems_are_the_same_as_all_of_them(execution, monkeypatch):
    """Compiled, three are two chunks of two sizes."""
    monkeypatch.setattr("leakboard.attack.stack.SIZES", (2, 1))
    whole = one_step("lenet_sigmoid", "squared", torch.float64, "loop")
    for chosen in (torch.tensor([0, 2]), torch.tensor([1]), torch.tensor([0, 1, 2])):
        some = one_step("lenet_sigmoid", "squared", torch.float64, execution, chosen)
        for mine, theirs in zip(some, whole, strict=True):
            assert close(mine, theirs[chosen], 1e-10)


def test_one_observation_needs_no_leading_dimension():
    (seen,) = problems("lenet_relu", torch.float64, "stacked")[:1]
    images, logits = (part[0].requires_grad_() for part in start("lenet_relu", torch.float64))
    alone = Matching(seen, squared_distance, "float64")(images, logits.softmax(1), [images])
    many = Matching([seen], squared_distance, "float64")(images[None], logits[None].softmax(2), [images])
    assert alone[0].ndim == 0 and torch.equal(alone[0], many[0][0]) and torch.equal(alone[1][0], many[1][0])


# ---------------------------------------------------------------------------------------------------------------------
# Factors of linear layers.


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr("leakboard.attack.step.LARGE", 1)


@pytest.mark.parametrize("kind", TOLERANCE, ids=str)
@pytest.mark.parametrize("execution", ["loop", "stacked"])
@pytest.mark.parametrize("name", NETWORKS)
def test_factored_linear_layers_change_nothing(name, execution, kind, monkeypatch):
    formed = one_step(name, "cosine", kind, execution)
    monkeypatch.setattr("leakboard.attack.step.LARGE", 1)
    assert Factors(tiny_seen(name, kind).model, (2, *TINY[name][0]), cosine_distance).layers
    for mine, theirs in zip(one_step(name, "cosine", kind, execution), formed, strict=True):
        for problem in range(PROBLEMS):
            assert close(mine[problem], theirs[problem], TOLERANCE[kind])


def test_factors_are_the_gradient():
    rng = torch.Generator().manual_seed(6)
    delta, x = (torch.randn(size, generator=rng, dtype=torch.float64) for size in ((3, 5), (3, 7)))
    seen = torch.randn(5, 7, generator=rng, dtype=torch.float64)
    delta, x = delta.requires_grad_(), x.requires_grad_()
    formed = delta.T @ x
    value, (plain,) = cosine_distance([formed.detach()], [seen])
    factored, (cotangent,) = cosine_distance([Outer(delta.detach(), x.detach())], [seen])
    torch.testing.assert_close(factored, value, rtol=1e-12, atol=1e-14)
    for mine, theirs in zip(cotangent, torch.autograd.grad(formed, [delta, x], plain), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("everything_is_large")
def test_only_layers_that_one_pass_calls_once_on_a_matrix_are_factored():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows, self.twice, self.once = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(16, 3)

        def forward(self, x):
            return self.once(self.twice(self.twice(self.rows(x[:, 0]).flatten(1).view(-1, 4))).view(len(x), 16))

    model = Twice()
    assert Factors(model, (2, 1, 4, 4), cosine_distance).layers == [model.once]
    assert Factors(model, (2, 1, 4, 4), squared_distance).layers == [], "its difference would lose digits"
    assert LARGE > 1


# ---------------------------------------------------------------------------------------------------------------------
# What it costs, and in which numbers.


@pytest.mark.parametrize("execution", ["loop", "stacked"])
def test_every_problem_pays_for_its_own_evaluations(execution):
    seen, spent = problems("lenet_sigmoid", torch.float32, execution), [0] * PROBLEMS

    def payer(index: int):
        def pay(*_: object) -> None:
            spent[index] += 1
            if spent[index] > 2:
                raise BudgetSpent("enough")

        return pay

    for index, one in enumerate(seen):
        one.meter = payer(index)
        one.model.register_forward_hook(payer(index))
    matching, (images, logits) = Matching(seen, squared_distance), start("lenet_sigmoid", torch.float32)
    images, labels = images.requires_grad_(), logits.argmax(2)
    matching(images, labels, [images])
    matching(images[1:], labels[1:], [images], torch.tensor([1, 2]))
    assert spent == [1, 2, 2]
    with pytest.raises(BudgetSpent):
        matching(images, labels, [images])


@pytest.mark.parametrize("execution", ["loop", "stacked"])
def test_precision(execution):
    """Double is near to what double models give, half points the same way."""
    seen = problems("lenet_relu", torch.float32, execution)
    images, logits = start("lenet_relu", torch.float32)
    images, labels = images.requires_grad_(), logits.argmax(2)

    def slope(precision: str) -> Tensor:
        return Matching(seen, cosine_distance, precision)(images, labels, [images])[1][0].flatten().double()

    single, double, half = slope("float32"), slope("float64"), slope("bf16")
    assert 0 < float((single - double).norm() / double.norm()) < 1e-4
    assert float((half - double).norm() / double.norm()) > 1e-4
    assert float(nn.functional.cosine_similarity(half, double, dim=0)) > 0.9
    assert all(parameter.dtype == torch.float32 for one in seen for parameter in one.model.parameters())
