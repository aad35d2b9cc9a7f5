"""One stage: a paper on a benchmark at a scale. Runs the trials that its store lacks and derives the rest from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from leakboard.config import Benchmark, ConfigError, paper_names, params, root
from leakboard.record import trial_lines
from leakboard.record.aggregate import summarise
from leakboard.record.results import Results
from leakboard.run import kept
from leakboard.run.execution import LOOP
from leakboard.run.jobs import Group, Rows
from leakboard.run.trained import train
from leakboard.run.trial import Job, Outcome, attempt_group
from leakboard.run.trial import lost as lost_trial
from leakboard.run.workers import spread

KEEP_SECONDS = 1.0  # a kill without warning loses at most so much of finished work
Report = Callable[[str, int, int], None]  # (stage, trials done, of how many)


@dataclass(frozen=True)
class Stage:
    paper: str
    benchmark: Benchmark
    results: Results

    @property
    def folder(self) -> Path:
        return self.results.folder(self.paper, self.benchmark.name)

    @property
    def reconstructions(self) -> Path:
        return self.results.reconstructions(self.paper, self.benchmark.name)

    @property
    def variants(self) -> dict[str, dict[str, Any]]:
        """{row: its settings}"""
        return params(self.paper).variants_on(self.benchmark)

    def rows(self, device: str) -> Rows:
        attack = root() / "baselines" / self.paper / "attack.py"
        return Rows(self.paper, attack, params(self.paper).version, self.variants, self.benchmark, device)

    def absent(self, store: pd.DataFrame, trials: Sequence[int], rows: Rows) -> dict[str, list[int]]:
        """{variant: the trials that the store lacks under the present key}"""
        keys = trial_lines.present_keys(self.paper, self.benchmark)
        where = rows.device_kind, str(rows.execution)
        return {name: trial_lines.missing(store, name, keys[name], trials, *where) for name in self.variants}


def stages(results: Results, paper: str | None, benchmark: str | None) -> list[Stage]:
    """The stages of one paper, or of all; ConfigError when the paper does not stand on the benchmark."""
    found = []
    for name in [paper] if paper else paper_names():
        boards = params(name).boards
        if benchmark is not None and benchmark not in boards:
            if paper:
                raise ConfigError(f"{paper} does not run on {benchmark!r}; its runs: {', '.join(boards)}")
            continue
        wanted = boards if benchmark is None else [benchmark]
        found += [Stage(name, results.benchmark(board), results) for board in wanted]
    return found


def reproduce(
    stages: Sequence[Stage],
    *,
    trials: Sequence[int] | None = None,
    device: str = "auto",
    workers: int | Literal["ray"] = 2,
    fresh: bool = False,
    report: Report = lambda name, done, total: None,
) -> int:
    """Run what the stores lack, stage by stage over one set of workers, and return how many trials ran.

    Finished trials are in their stores within a second, and at once at an interrupt: it loses the trials under way and
    nothing else, and the same call goes on from there.
    """
    open_stages = {(s.paper, s.benchmark.name): _Open(s, trials, device, fresh) for s in stages}
    train(need for opened in open_stages.values() if opened.groups for need in opened.rows.attacks())
    groups = [group for opened in open_stages.values() for group in opened.groups]
    for opened in open_stages.values():
        opened.finish_if_done()
    try:
        for group, outcomes in spread(attempt_group, groups, workers, died_twice):
            opened = open_stages[group[0].attack, group[0].benchmark.name]
            opened.add(group, outcomes)
            report(f"{opened.stage.paper} {opened.stage.benchmark.name}", opened.done, opened.asked)
            opened.finish_if_done()
    finally:
        for opened in open_stages.values():
            opened.keep()
    return sum(opened.asked for opened in open_stages.values())


def died_twice(group: Group) -> list[Outcome]:
    """A group whose worker died twice is tried plainly, trial by trial; a single trial is lost."""
    if len(group) == 1 and group[0].execution == LOOP:
        return [lost_trial(group[0])]
    alone = [(replace(job, execution=LOOP),) for job in group]
    found = {job.trial: outcome for (job,), (outcome,) in spread(attempt_group, alone, 1, died_twice)}
    return [found[job.trial] for job in group]


class _Open:
    """A stage while its trials come in: its store and its curves."""

    def __init__(self, stage: Stage, trials: Sequence[int] | None, device: str, fresh: bool) -> None:
        self.stage, self.done, self.rows = stage, 0, stage.rows(device)
        self.store = trial_lines.frame() if fresh else trial_lines.read(stage.folder / "trials.csv")
        self.curves = kept.read_curves(stage.folder / "curve.csv") if not fresh else kept.curve_rows(())
        chosen = range(stage.benchmark.trials) if trials is None else trials
        absent = stage.absent(self.store, chosen, self.rows)
        self.groups = self.rows.groups(absent)
        self.wanted = {(variant, trial) for variant, listed in absent.items() for trial in listed}
        self.waiting: list[tuple[Job, Outcome]] = []
        self.kept = time.monotonic()
        stage.folder.mkdir(parents=True, exist_ok=True)

    @property
    def asked(self) -> int:
        return len(self.wanted)

    def add(self, group: Group, outcomes: Sequence[Outcome]) -> None:
        """Take the trials that were asked for; the rest of their group ran along, and may be there already."""
        wanted = [pair for pair in zip(group, outcomes, strict=True) if (pair[0].variant, pair[0].trial) in self.wanted]
        self.waiting += wanted
        self.done += len(wanted)
        if time.monotonic() - self.kept > KEEP_SECONDS:
            self.keep()

    def keep(self) -> None:
        """Write what is waiting: writing after every trial would cost more than the shortest trials."""
        self.kept = time.monotonic()
        if not self.waiting:
            return
        new, self.waiting = self.waiting, []
        self.store = trial_lines.merge(self.store, trial_lines.frame([outcome.line for _, outcome in new]))
        trial_lines.write(self.stage.folder / "trials.csv", self.store)
        self.curves = kept.merged_curves(self.curves, kept.curve_rows(outcome.curve for _, outcome in new))
        kept.write_curves(self.stage.folder / "curve.csv", self.curves)
        for job, outcome in new:
            kept.keep(self.stage.reconstructions, job.variant, job.trial, outcome.got, outcome.pictures)

    def finish_if_done(self) -> None:
        if self.done == self.asked:
            self.keep()
            derive(self.stage)


def derive(stage: Stage) -> None:
    """Everything that follows from the store: aggregates, timing and the grid of pictures."""
    summarise(stage.results, stage.paper, stage.benchmark.name)
    kept.draw_grid(stage.folder / "grid.png", kept.gallery(stage.reconstructions, stage.variants))
