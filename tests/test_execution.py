"""Every execution of gradient matching computes what the plain one computes, for every network."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_mathematics import COSTS, TINY, tiny_seen
from torch import Tensor

from leakboard.attack.matching import Matching
from leakboard.models import NETWORKS
from leakboard.rng import seeded
from leakboard.threat import Gradient

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
PROBLEMS = 3


def problems(name: str, kind: torch.dtype, execution: str) -> list[Gradient]:
    """Different networks of one architecture, with different observations."""
    found = []
    for number in range(PROBLEMS):
        seen = tiny_seen(name, kind)
        with seeded("another", name, number), torch.no_grad():
            for parameter in seen.model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
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
