"""A step of ours beside a step as the usual implementations make it -> `results/<scale>/peers.csv`.

Both evaluate cosine distance + total variation and their derivative; neither moves the images. The usual step lets
autograd run through the cost and calls `.backward()`, which also accumulates the derivatives of every weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median

import pandas as pd
import pytest
import torch
from timing import observation, timed
from torch import Tensor

from leakboard.attack.matching import Matching, cosine_distance
from leakboard.attack.priors import total_variation_slope
from leakboard.record.trial_lines import write_text
from leakboard.run import machine
from leakboard.threat import Gradient

TV = 1e-4
SIDE = 32
CASES = [("cnn", "loop", 9), ("cnn", "compiled", 9), ("resnet18", "loop", 5)]  # network, ours, rounds
COLUMNS = ["network", "cost", "execution", "device", "peer_seconds", "our_seconds", "ratio"]
COLUMNS += ["device_name", "torch", "threads", "commit"]
Step = Callable[[], Tensor]


def peer(seen: Gradient, start: Tensor) -> Step:
    """Cost and regulariser by autograd, then `.backward()`."""
    dummy = start.clone().requires_grad_()
    parameters = list(seen.model.requires_grad_().parameters())
    optimiser = torch.optim.Adam([dummy], lr=0.1)

    def step() -> Tensor:
        optimiser.zero_grad()
        loss = seen.loss(seen.model(dummy), seen.labels)
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        inner, square, observed = (torch.zeros((), device=dummy.device) for _ in range(3))
        for g, true in zip(gradients, seen.gradient, strict=True):
            inner = inner + (g * true).sum()
            square = square + g.pow(2).sum()
            observed = observed + true.pow(2).sum()
        cost = 1 - inner / (square.sqrt() * observed.sqrt())
        across = (dummy[..., 1:] - dummy[..., :-1]).abs().mean()
        down = (dummy[..., 1:, :] - dummy[..., :-1, :]).abs().mean()
        (cost + TV * (across + down)).backward()
        assert dummy.grad is not None
        return dummy.grad

    return step


def ours(seen: Gradient, start: Tensor) -> Step:
    images, labels = start.clone().requires_grad_(), seen.labels
    assert labels is not None
    matching = Matching(seen, cosine_distance)

    def step() -> Tensor:
        _, (gradient,) = matching(images, labels, [images])
        return gradient + TV * total_variation_slope(images.detach()[None])[1][0]

    return step


@pytest.fixture(scope="module")
def rows(results, device) -> Iterator[list[dict]]:
    """At the end they are written, beside those of other kinds of devices."""
    found: list[dict] = []
    yield found
    if found:
        table, path = pd.DataFrame(found, columns=COLUMNS), results / "peers.csv"
        if path.exists():
            table = pd.concat([pd.read_csv(path), table])
        table = table.drop_duplicates(["network", "execution", "device"], keep="last")
        write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


@pytest.mark.parametrize(("network", "execution", "rounds"), CASES, ids=[f"{n}-{kind}" for n, kind, _ in CASES])
def test_peers(network, execution, rounds, scale, device, rows, benchmark):
    if scale != "paper":
        pytest.skip("at paper scale only")
    theirs = observation(network, None, SIDE, 1, device)
    mine = observation(network, None, SIDE, 1, device, execution)
    start = torch.rand(theirs.shape, generator=torch.Generator().manual_seed(1)).to(device)
    one, other = ours(mine, start), peer(theirs, start)
    wanted = other().clone()
    assert float((one() - wanted).norm()) <= 1e-3 * float(wanted.norm())
    got: list[float] = []
    usual: list[float] = []
    benchmark.pedantic(
        lambda: got.append(timed(one, device).seconds),
        setup=lambda: usual.append(timed(other, device).seconds),
        rounds=rounds,
    )
    about = machine.describe(device)
    rows.append(
        {
            "network": network, "cost": f"cosine + {TV:g} TV", "execution": execution, "device": device.type,
            "peer_seconds": median(usual), "our_seconds": median(got),
            "ratio": median([peer / ours for peer, ours in zip(usual, got, strict=True)]),
            "device_name": about["device"], "torch": about["torch"], "threads": about["threads"],
            "commit": machine.commit()[0],
        }
    )  # fmt: skip
