"""What the speed suite times: whole attacks on victims that no board reports, and what one step of a network costs.

On CUDA seconds come from CUDA events; on a CPU they are processor seconds of this process, which does its work in one
thread, so that other work on the machine does not count.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor

from leakboard import config
from leakboard.attack import contract
from leakboard.attack.clock import Clock
from leakboard.attack.meter import Meter
from leakboard.attack.step import bare
from leakboard.config import Benchmark, Scale
from leakboard.models import build
from leakboard.record import speed
from leakboard.rng import generator, seeded
from leakboard.run.execution import GROUPS, LOOP, Execution
from leakboard.run.observation import observe
from leakboard.threat import Gradient, Seen
from leakboard.victim.leak import gradient
from leakboard.victim.secrets import Secret, public, shape_and_classes

FIRST = 1_000_000  # the trial from which on no board reports anything
LEAST, MOST, SECONDS = 8, 128, 0.5  # evaluations per call: as many as the loop makes in half a second
SAME = 1e-4  # relative difference of a step from the loop's


@dataclass(frozen=True)
class Span:
    """What a call took: seconds on the device's clock, processor seconds, gradient evaluations."""

    seconds: float
    cpu_seconds: float
    evaluations: int

    @property
    def per_step(self) -> float:
        return self.seconds / self.evaluations


def timed(call: Callable[[], object], device: torch.device, evaluations: int = 1) -> Span:
    clock, before = Clock(device), time.process_time()
    with clock.running():
        call()
    processor = time.process_time() - before
    return Span(clock.total if clock.cuda else processor, processor, evaluations)


def floor(model: torch.nn.Module, loss: torch.nn.Module, images: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """One forward, backward and double backward by plain autograd, with a fixed random cotangent."""
    parameters = list(model.requires_grad_().parameters())
    rng = torch.Generator().manual_seed(0)
    cotangent = [torch.randn(one.shape, generator=rng).to(one) for one in parameters]

    def once() -> Tensor:
        x = images.detach().requires_grad_()
        gradients = torch.autograd.grad(loss(model(x), labels), parameters, create_graph=True)
        return torch.autograd.grad(gradients, x, cotangent)[0]

    return once


def observation(
    name: str, width: int | None, side: int, batch: int, device: torch.device, execution: str = "loop"
) -> Gradient:
    """The gradient of random images (batch, 3, side, side) through a fresh network, in evaluation mode."""
    shape = (3, side, side)
    with seeded("speed", name, width, side):
        model = build(name, shape, 10, width).eval().to(device)
    rng, loss = generator("speed", batch, side), torch.nn.CrossEntropyLoss()
    hidden = Secret(torch.rand(batch, *shape, generator=rng), torch.arange(batch) % 10).to(device)
    seen = gradient(model, loss, hidden)
    return Gradient(
        model=model, loss=loss, shape=(batch, *shape), classes=10, labels=hidden.labels, gradient=seen,
        execution=execution,
    )  # fmt: skip


def places(scale: Scale) -> Iterator[tuple[str, str]]:
    """(benchmark, paper) wherever an attack that takes many trials at once has to search.

    Where one evaluation is all that the budget gives, as for labels alone, there is no search.
    """
    for paper in config.paper_names():
        attack = contract.load(config.root() / "baselines" / paper / "attack.py")
        if hasattr(attack, "reconstruct_many"):
            boards = config.params(paper).boards_at(scale)
            own = (name for name in boards if speed.measured_on(name) == name)
            yield from ((name, paper) for name in own if config.benchmark(name, scale).budget > 1)


class Workload:
    """An attack, in its first variant there is on a benchmark, and victims for it."""

    def __init__(self, benchmark: Benchmark, paper: str, device: torch.device) -> None:
        self.benchmark, self.paper, self.device = benchmark, paper, device
        settings = next(iter(config.params(paper).variants_on(benchmark).values()))
        source = contract.load(config.root() / "baselines" / paper / "attack.py")
        self.attack = contract.configure(source, settings)
        pool = public(benchmark)
        if pool is None:
            raise ValueError(f"{benchmark.name} has no public images to take the place of victims")
        self.pool = pool
        self.cold: dict[Execution, float] = {}
        self.seen: list[Seen] = []
        self.meters: list[Meter] = []

    def victim(self, number: int) -> Seen:
        """A public image behind a network of its own."""
        size = self.benchmark.batch
        rows = torch.arange(number * size, (number + 1) * size) % len(self.pool.images)
        labels = self.pool.labels[rows] % shape_and_classes(self.benchmark)[1]  # public people are others than victims
        hidden = Secret(self.pool.images[rows], labels)
        return observe(self.benchmark, FIRST + number, device=self.device, hidden=hidden).seen

    def call(self, execution: Execution, budget: int, group: int | None = None) -> Span:
        """The attack on `group` victims, or as many as the execution stacks, with `budget` evaluations for each."""
        group = group or execution.group
        while len(self.seen) < group:
            self.seen.append(self.victim(len(self.seen)))
            self.meters.append(Meter(self.seen[-1], Clock(self.device), 1.0, lambda shot: None))
            self.seen[-1].observer = None  # snapshots are no part of the attack
        seen, meters = self.seen[:group], self.meters[:group]
        for one, meter in zip(seen, meters, strict=True):
            one.budget, one.execution = budget, execution.kind
            meter.budget, meter.evaluations = budget, 0
        seed = self.benchmark.seed
        rngs = [generator("attack", seed, FIRST + number) for number in range(group)]
        span = timed(lambda: self.attack.reconstruct_many(seen, rngs), self.device)  # type: ignore[attr-defined]
        return dataclasses.replace(span, evaluations=sum(meter.evaluations for meter in meters))

    def first_step(self, execution: Execution, group: int) -> Heard:
        """What the first evaluation of a search of three gives."""
        with listening(self.attack) as heard:
            self.call(execution, 3 * self.passes, group)
        return heard

    @functools.cached_property
    def passes(self) -> int:
        """Evaluations of one step of a search: as many as the client made local steps."""
        local = getattr(self.victim(0), "local", None)
        return 1 if local is None else len(local.rates)

    def warm_up(self, execution: Execution) -> float:
        """Wall seconds of the first call, and what is compiled later for problems that are left when others have ended.

        ValueError when a first step is not the loop's.
        """
        compiled = execution.kind in ("compiled", "cuda_graph")
        shrinks = compiled and self.first_step(LOOP, 1).one_by_one
        smaller = [Execution(execution.kind, group) for group in GROUPS if shrinks and group < execution.group]
        return sum(self._cold(one) for one in (*smaller, execution))

    def _cold(self, execution: Execution) -> float:
        """Wall seconds of the first call, compiled from nothing whatever ran before."""
        from torch._inductor.utils import fresh_cache

        if execution not in self.cold:
            with fresh_cache():
                before = time.perf_counter()
                got = self.first_step(execution, execution.group)
                seconds = time.perf_counter() - before
            apart = difference(got.parts, self.first_step(LOOP, execution.group).parts)
            if not apart <= SAME:
                raise ValueError(f"its step differs from the loop's by {apart:.2g}")
            self.cold[execution] = seconds
        return self.cold[execution]

    @functools.cached_property
    def loop_seconds(self) -> float:
        """One evaluation of the plain loop."""
        self.call(LOOP, 3 * self.passes)
        return self.call(LOOP, LEAST * self.passes).per_step

    @property
    def evaluations(self) -> int:
        """What one call is given."""
        return max(LEAST * self.passes, min(MOST, self.benchmark.budget, int(SECONDS / self.loop_seconds)))

    @functools.cached_property
    def _floor(self) -> Callable[[], Tensor]:
        one = self.victim(0)
        x = torch.rand(one.shape, generator=generator("floor")).to(self.device)
        labels = torch.zeros(len(x), dtype=torch.long, device=self.device)
        return floor(bare(one.model), one.loss, x, labels)

    def floor(self) -> Span:
        count = self.evaluations
        return timed(lambda: [self._floor() for _ in range(count)], self.device, count)


@dataclass
class Heard:
    """Cost and derivatives, each (P, ...); one_by_one: whether problems may end before others."""

    parts: list[Tensor] = dataclasses.field(default_factory=list)
    one_by_one: bool = False


@contextlib.contextmanager
def listening(attack: contract.Attack) -> Iterator[Heard]:
    """What the attack's first gradient evaluation gives while it lasts."""
    names = type(attack).reconstruct.__globals__
    heard = Heard()

    matching = names["Matching"]

    def call(self, images, labels, inputs, which=None):
        value, derivatives = matching.__call__(self, images, labels, inputs, which)
        if not heard.parts:
            heard.parts = [part.detach().clone() for part in (value, *derivatives)]
            heard.one_by_one = which is not None
        return value, derivatives

    with mock.patch.dict(names, Matching=type("Listening", (matching,), {"__call__": call})):
        yield heard


def difference(mine: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest relative difference (norm) of cost or derivative over problems."""
    parts = [
        (one.flatten(1) - other.flatten(1)).norm(dim=1) / other.flatten(1).norm(dim=1)
        for one, other in ((a.reshape(len(a), -1), b.reshape(len(b), -1)) for a, b in zip(mine, theirs, strict=True))
    ]
    return float(torch.cat(parts).max())
