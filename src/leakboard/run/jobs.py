"""Rows of a board as jobs: the trials of every variant, in the groups that are computed together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leakboard.config import Benchmark
from leakboard.run import machine
from leakboard.run.attacker import Attacker
from leakboard.run.execution import Execution, chosen
from leakboard.run.trial import Job

Group = tuple[Job, ...]  # trials that are one computation


@dataclass(frozen=True)
class Rows:
    """An attack on a benchmark: its source, and {variant: settings}."""

    attack: str
    path: Path
    version: int
    variants: Mapping[str, Mapping[str, Any]]
    benchmark: Benchmark
    device: str

    @property
    def device_kind(self) -> str:
        return machine.device_of(self.device).type

    @property
    def execution(self) -> Execution:
        return chosen(self.attack, self.benchmark, self.device_kind)

    def attacks(self, trials: Iterable[int]) -> list[tuple[Benchmark, Attacker, list[int]]]:
        """The benchmark with the attack of every variant, and the trials: what must be trained depends on all three."""
        asked = sorted(set(trials))
        return [(self.benchmark, Attacker(self.path, dict(settings)), asked) for settings in self.variants.values()]

    def groups(self, wanted: Mapping[str, Sequence[int]]) -> list[Group]:
        """The computations that together hold these trials, {variant: trials}; first trials first."""
        how, groups = self.execution, []
        for variant, trials in wanted.items():
            settings = dict(self.variants[variant])
            job = Job(
                self.benchmark, self.attack, variant, self.path, settings, self.version, 0, self.device,
                machine.commit(), how,
            )  # fmt: skip
            groups += [
                tuple(replace(job, trial=trial) for trial in members)
                for members in how.groups(trials, self.benchmark.trials)
            ]
        return sorted(groups, key=lambda group: group[0].trial)
