"""How a trial computes, read from the committed table of measurements: a pure function of attack, benchmark and device.

Bits are equal within one execution only, and a group of trials is one computation: so the group is the unit that runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from leakboard.config import Benchmark
from leakboard.errors import Fault
from leakboard.record import speed
from leakboard.record.speed import EXECUTIONS

GROUPS = (1, 4, 16, 64)  # sizes that are measured


class ExecutionError(Fault, ValueError):
    """No such execution."""


@dataclass(frozen=True)
class Execution:
    """kind: `loop` (the plain one), `stacked`, `compiled`, `cuda_graph`; group: trials as one computation."""

    kind: str = "loop"
    group: int = 1

    def __post_init__(self) -> None:
        if self.kind not in EXECUTIONS or self.group < 1 or (self.kind == "loop" and self.group > 1):
            known = ", ".join(EXECUTIONS)
            raise ExecutionError(f"no execution {self.kind!r} of {self.group} trials; there are: {known}")

    def __str__(self) -> str:
        return self.kind if self.group == 1 else f"{self.kind} x{self.group}"

    @classmethod
    def named(cls, name: str) -> Execution | None:
        """That which a line names, as `str` writes it; None where there is none such."""
        kind, together, size = name.partition(" x")
        try:
            return cls(kind, int(size) if together else 1)
        except ValueError:
            return None

    def members(self, trial: int, count: int) -> range:
        """The group that `trial` belongs to, of a benchmark's `count` trials; those beyond run alone."""
        if trial >= count:
            return range(trial, trial + 1)
        first = trial - trial % self.group
        return range(first, min(first + self.group, count))

    def groups(self, trials: Iterable[int], count: int) -> list[range]:
        """The groups that together hold `trials`."""
        return sorted({self.members(trial, count) for trial in trials}, key=lambda group: group.start)


LOOP = Execution()


def chosen(attack: str, benchmark: Benchmark, device_kind: str) -> Execution:
    """What `results/<scale>/speed.csv` chose for this attack on this benchmark; the plain loop where it is silent."""
    row = speed.chosen(benchmark.scale).get((speed.measured_on(benchmark.name), attack, device_kind))
    return LOOP if row is None else Execution(row.execution, row.stacked)
