"""Trials while they come in: handed to workers, counted, and saved about every second and at whatever end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pandas as pd

from leakboard.errors import Fault
from leakboard.recipes.store import RecipeError
from leakboard.record import saving, trial_lines
from leakboard.run.execution import LOOP
from leakboard.run.jobs import Group
from leakboard.run.kept import GRID, Place
from leakboard.run.trained import Training
from leakboard.run.trial import Outcome, attempt_group
from leakboard.run.trial import lost as lost_trial
from leakboard.run.workers import Report, spread

SAVE_SECONDS = 1.0  # a kill without warning loses at most so much of finished work


@dataclass
class Opened:
    """An attack on a benchmark. wanted: {(variant, trial)} that lack; a group may hold more, which run along.

    outdated: lines of the store that go when the first trial is saved. shown: trials whose pictures are kept.
    """

    name: str
    place: Place
    groups: Sequence[Group]
    wanted: set[tuple[str, int]]
    outdated: pd.DataFrame = field(default_factory=trial_lines.frame)
    shown: Sequence[int] = range(GRID)
    finish: Callable[[], None] = lambda: None
    done: int = 0
    reasons: list[str] = field(default_factory=list)
    waiting: list[Outcome] = field(default_factory=list)
    saved: float = field(default_factory=time.monotonic)

    @property
    def why(self) -> str:
        """The first reason, where every trial so far has failed."""
        return self.reasons[0] if 0 < self.done == len(self.reasons) else ""

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Take the trials that were asked for; the rest of their group may be there already."""
        asked = [one for one in outcomes if (one.line["variant"], one.line["trial"]) in self.wanted]
        self.waiting += asked
        self.done += len(asked)
        self.reasons += [reason_of(one.line) for one in asked if one.line["status"] in trial_lines.FAILURES]
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Save what is waiting: saving after every trial would cost more than the shortest trials."""
        self.saved = time.monotonic()
        if not self.waiting:
            return
        with saving.uncut():
            self.place.save(self.waiting, self.outdated, self.shown)
            self.waiting, self.outdated = [], trial_lines.frame()

    def finish_if_done(self) -> None:
        if self.done == len(self.wanted):
            self.save()
            self.finish()


def run_all(
    opened: Sequence[Opened], trainings: Sequence[Training], workers: int | Literal["ray"], report: Report
) -> None:
    """Run what all of these want over one set of workers, after what has to be trained for it.

    A trial that needs what another worker still trains waits for it. Finished trials are saved within a second, and at
    once at an interrupt: it loses the trials under way and nothing else. SaveError where something cannot be saved; no
    more trials are run then. Their places must be prepared.
    """
    by_name = {(group[0].attack, group[0].benchmark.name): one for one in opened for group in one.groups}
    for one in opened:
        one.finish_if_done()
    if workers == "ray":  # its machines are handed weights, not recipes
        for training in trainings:
            training.run()
        trainings = ()
    jobs: list[Training | Group] = [*trainings, *(group for one in opened for group in one.groups)]
    trained = 0
    try:
        for job, outcomes in spread(_work, jobs, workers, _died_twice):
            if isinstance(job, Training):
                trained += 1
                report("trained for them", trained, len(trainings), "", "recipes")
                continue
            one = by_name[job[0].attack, job[0].benchmark.name]
            one.add(outcomes)
            report(one.name, one.done, len(one.wanted), one.why)
            one.finish_if_done()
    finally:
        _save_all(opened)


def _work(job: Training | Group) -> list[Outcome]:
    if isinstance(job, Training):
        job.run()
        return []
    return attempt_group(job)


def _died_twice(job: Training | Group) -> list[Outcome]:
    if isinstance(job, Training):
        raise RecipeError(f"{job.benchmark.name}: the worker that trained the {job.need} was killed, twice")
    return died_twice(job)


def _save_all(opened: Sequence[Opened]) -> None:
    """What cannot be saved in one place keeps nothing from being saved in the others."""
    faults = []
    with saving.uncut():
        for one in opened:
            try:
                one.save()
            except Fault as fault:
                faults.append(fault)
        if faults:
            raise faults[0]


def died_twice(group: Group) -> list[Outcome]:
    """A group whose worker died twice is tried plainly, trial by trial; a single trial is lost."""
    if len(group) == 1 and group[0].execution == LOOP:
        return [lost_trial(group[0])]
    alone = [(replace(job, execution=LOOP),) for job in group]
    found = {job.trial: outcome for (job,), (outcome,) in spread(attempt_group, alone, 1, died_twice)}
    return [found[job.trial] for job in group]


def failed_rows(lines: pd.DataFrame) -> list[str]:
    """A sentence for every row (variant, device kind) of one attack's lines in which no trial succeeded: why not."""
    said = []
    for (variant, _), row in lines[lines["status"] != "skipped"].groupby(["variant", "device_kind"]):
        if row["status"].isin(trial_lines.FAILURES).all():
            first = row.sort_values("trial").iloc[0].to_dict()
            which = f"{first['attack']} / {variant} on {first['benchmark']}"
            said.append(f"{which}: no trial of {len(row)} succeeded; the first: {reason_of(first)}")
    return said


def reason_of(line: Mapping[Any, Any]) -> str:
    return str(line.get("reason") or line["status"])
