"""Every execution of every search, timed end to end beside the loop and the floor -> `results/<scale>/speed.csv`."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

import pytest
import torch
from timing import Span, Workload

from leakboard import config
from leakboard.attack.clock import peak_bytes, reset_peak
from leakboard.attack.stack import COMPILED
from leakboard.record.speed import Measured
from leakboard.run import machine
from leakboard.run.execution import LOOP, Execution

ROUNDS, FEW, LONG = 5, 3, 3.0  # rounds; fewer where a call takes longer than so many seconds
COMPILING = 20.0  # seconds: no compiler is faster, so a stage that the loop does in less needs none
LOSES = 1 / 1.1  # a stack of four this slow says that larger groups lose too
WORKLOADS: dict[tuple[str, str], Workload] = {}  # the one at hand
NO_GROUPS: set[tuple[str, str]] = set()  # where stacking loses


@dataclass
class Rounds:
    """The spans of one execution, and of the loop and the floor beside it."""

    mine: list[Span] = field(default_factory=list)
    loop: list[Span] = field(default_factory=list)
    floor: list[Span] = field(default_factory=list)
    peak: int = 0

    def to_loop(self) -> float:
        return median([other.per_step / one.per_step for one, other in zip(self.mine, self.loop, strict=True)])

    def to_floor(self) -> float:
        return median([one.per_step / other.per_step for one, other in zip(self.mine, self.floor, strict=True)])


def test_execution(place, execution, scale, device, measured, benchmark):
    if place in NO_GROUPS and execution.group > 1:
        pytest.skip("larger groups lose where four already do")
    if place not in WORKLOADS:
        WORKLOADS.clear()
        COMPILED.clear()
        torch._dynamo.reset()
        WORKLOADS[place] = Workload(config.benchmark(place[0], scale), place[1], device)
    work = WORKLOADS[place]
    whole = work.loop_seconds * work.benchmark.trials * work.benchmark.budget
    if execution.kind == "compiled" and whole < COMPILING:
        pytest.skip("the loop does the whole stage in less than a compiler takes")
    try:
        warm_up = work.warm_up(execution)
        rounds = in_rounds(work, execution, benchmark)
    except Exception as error:  # whatever it is, such an execution is never chosen
        pytest.skip(f"{execution}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    row = row_of(work, execution, warm_up, rounds)
    if execution == Execution("stacked", 4) and row.ratio_to_loop < LOSES:
        NO_GROUPS.add(place)
    benchmark.extra_info.update({name: getattr(row, name) for name in ("ratio_to_loop", "ratio_to_floor")})
    measured.append(row)


def in_rounds(work: Workload, execution: Execution, benchmark) -> Rounds:
    """In each round the loop, the floor and this execution, one after the other."""
    rounds, budget = Rounds(), work.evaluations

    def beside() -> None:
        rounds.loop.append(work.call(LOOP, budget))
        rounds.floor.append(work.floor())
        reset_peak(work.device)

    def this() -> None:
        rounds.mine.append(work.call(execution, budget))

    def peak() -> None:
        rounds.peak = max(rounds.peak, peak_bytes(work.device))

    expected = work.loop_seconds * budget * execution.group
    benchmark.pedantic(this, setup=beside, teardown=peak, rounds=FEW if expected > LONG else ROUNDS)
    return rounds


def row_of(work: Workload, execution: Execution, warm_up: float, rounds: Rounds) -> Measured:
    about = machine.describe(work.device)
    return Measured(
        benchmark=work.benchmark.name,
        attack=work.paper,
        device=work.device.type,
        execution=execution.kind,
        stacked=execution.group,
        seconds_per_step=median([span.per_step for span in rounds.mine]),
        cpu_seconds_per_step=median([span.cpu_seconds / span.evaluations for span in rounds.mine]),
        ratio_to_loop=1.0 if execution == LOOP else rounds.to_loop(),
        ratio_to_floor=rounds.to_floor(),
        warm_up_seconds=warm_up,
        peak_bytes=rounds.peak,
        device_name=str(about["device"]),
        torch=str(about["torch"]),
        threads=torch.get_num_threads(),
        commit=machine.commit()[0],
    )
