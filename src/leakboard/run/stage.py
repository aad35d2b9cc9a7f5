"""One stage: a paper on a benchmark at a scale. Runs the trials that its store lacks and derives the rest from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch

from leakboard.board import figures
from leakboard.config import Benchmark, ConfigError, paper_names, params, root
from leakboard.data.sources import refuse_too_many
from leakboard.metrics import judged_against
from leakboard.record import trial_lines
from leakboard.record.aggregate import summarise
from leakboard.record.results import Results
from leakboard.run import kept, machine
from leakboard.run.jobs import Rows
from leakboard.run.opened import Opened, failed_rows, run_all
from leakboard.run.trained import lacking
from leakboard.run.workers import Report, silent
from leakboard.victim.secrets import official_among, official_trials, secret


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
    def place(self) -> kept.Place:
        return kept.Place(self.folder, self.reconstructions)

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
    """The stages of one paper, or of all; ConfigError when the paper does not stand on the benchmark.

    At paper scale those that have results, and any that is named.
    """
    found = []
    for name in [paper] if paper else paper_names():
        boards = params(name).boards
        if benchmark is not None and benchmark not in boards:
            if paper:
                raise ConfigError(f"{paper} does not run on {benchmark!r}; its runs: {', '.join(boards)}")
            continue
        wanted = params(name).boards_at(results.scale) if benchmark is None else [benchmark]
        found += [Stage(name, results.benchmark(board), results) for board in wanted]
    return found


def reproduce(
    stages: Sequence[Stage],
    *,
    trials: range | None = None,
    device: str = "auto",
    workers: int | Literal["ray"] = 2,
    fresh: bool = False,
    report: Report = silent,
) -> int:
    """Run what the stores lack, stage by stage over one set of workers, and return how many trials ran.

    An interrupt loses the trials under way and nothing else, and the same call goes on from there. Another call may
    run at the same time: what both have run is there once.
    """
    if stages:
        official_trials(max((stage.benchmark for stage in stages), key=lambda one: one.trials), trials)
    for stage in stages:
        refuse_too_many(stage.benchmark, official_among(stage.benchmark, trials))
    rows = [stage.rows(device) for stage in stages]
    opened = [_opened(stage, own, trials, fresh) for stage, own in zip(stages, rows, strict=True)]
    pairs = zip(opened, rows, strict=True)
    needed = (need for one, own in pairs if one.groups for need in own.attacks(trial for _, trial in one.wanted))
    run_all(opened, lacking(needed, device), workers, report)
    return sum(len(one.wanted) for one in opened)


def _opened(stage: Stage, rows: Rows, trials: range | None, fresh: bool) -> Opened:
    store = trial_lines.read(stage.place.file)
    outdated, there = (store, trial_lines.frame()) if fresh else (_abandoned(stage, store), store)
    absent = stage.absent(there, official_among(stage.benchmark, trials), rows)
    wanted = {(variant, trial) for variant, listed in absent.items() for trial in listed}
    if wanted or len(outdated):
        stage.place.prepare()
    if not wanted and len(outdated):
        stage.place.save((), outdated)
    name = f"{stage.paper} {stage.benchmark.name}"
    return Opened(name, stage.place, rows.groups(absent), wanted, outdated, finish=lambda: derive(stage))


def _abandoned(stage: Stage, store: pd.DataFrame) -> pd.DataFrame:
    """Stale lines whose place no new line will take: of a row, or a trial, that is not asked for any more."""
    stale = ~trial_lines.current(store, trial_lines.present_keys(stage.paper, stage.benchmark))
    asked = store["variant"].isin(stage.variants) & (store["trial"] < stage.benchmark.trials)
    return store[stale & ~asked]


def derive(stage: Stage) -> None:
    """Everything that follows from the store: aggregates, timing and the grid of pictures."""
    with stage.place.alone():
        summarise(stage.results, stage.paper, stage.benchmark.name)
        grid = stage.folder / "grid.png"
        kept.draw_grid(grid, _pictures(stage), _controls(stage))
        if not grid.exists() and judged_against(stage.benchmark.metrics[0]) == "labels":
            _draw_truth(grid, stage.benchmark)
        if stage.benchmark.threat.sees == "participation":
            kept.draw_lapse(stage.folder / "rounds.png", stage.reconstructions, next(iter(stage.variants)))


def _controls(stage: Stage) -> kept.Gallery:
    """Pictures of what one gets without attacking, for boards of classes: there no image is the one that is sought."""
    if judged_against(stage.benchmark.metrics[0]) != "classes" or "controls" not in paper_names():
        return {}
    return _pictures(Stage("controls", stage.benchmark, stage.results))


def _pictures(stage: Stage) -> kept.Gallery:
    """Of the first trials; of a benchmark that had more of them, older ones lie there too."""
    return kept.gallery(stage.reconstructions, stage.variants, range(min(kept.GRID, stage.benchmark.trials)))


def _draw_truth(path: Path, benchmark: Benchmark) -> None:
    """Where labels alone are handed in, what they are of: the first image of the first trials."""
    trials = range(min(benchmark.trials, kept.GRID))
    figures.grid(path, torch.cat([secret(benchmark, trial).images[:1] for trial in trials]).numpy(), {})


def failures(stages: Sequence[Stage], device: str = "auto") -> list[str]:
    """A sentence for every row of these stages that has no trial on this kind of device that succeeded."""
    kind = machine.device_of(device).type
    found = [stage.results.current_lines(stage.paper, stage.benchmark.name) for stage in stages]
    return [said for lines in found for said in failed_rows(lines[lines["device_kind"] == kind])]
