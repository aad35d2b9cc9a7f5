"""One stage: a paper on a benchmark at a scale. Runs the trials that its store lacks and derives the rest from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from leakboard import config
from leakboard.board import figures
from leakboard.config import Benchmark, ConfigError, Scale, paper_names, params, root
from leakboard.recipes import classifier as training
from leakboard.record import trial_lines
from leakboard.record.aggregate import summarise, write_json
from leakboard.run import machine
from leakboard.run.execution import LOOP, Execution, chosen
from leakboard.run.trial import Job, Outcome, Pictures, attempt_group
from leakboard.run.trial import lost as lost_trial
from leakboard.run.workers import spread
from leakboard.victim.network import network

KEEP_SECONDS = 1.0  # a kill without warning loses at most so much of finished work
GRID = 8  # images shown per variant
Gallery = dict[str, dict[int, Pictures]]  # variant -> trial -> pictures
Group = tuple[Job, ...]  # trials that are one computation
Place = tuple[str, int]  # (variant, trial)
Report = Callable[[str, int, int], None]  # (stage, trials done, of how many)
CURVE = ["variant", "trial", "device_kind", "step", "evaluations", "seconds", "loss", "mse", "psnr"]


@dataclass(frozen=True)
class Stage:
    """`results` is the folder that holds `<scale>/papers/...`."""

    paper: str
    benchmark: Benchmark
    results: Path

    @property
    def folder(self) -> Path:
        return self.results / self.benchmark.scale / "papers" / self.paper / self.benchmark.name

    @property
    def attack(self) -> Path:
        return root() / "baselines" / self.paper / "attack.py"

    @property
    def images(self) -> Path:
        """Reconstructions of the first trials, for the grid; never committed."""
        inside = self.results == root() / "results"
        base = root() / "build" / "images" if inside else self.results / "images"
        return base / self.benchmark.scale / self.paper / self.benchmark.name

    def variants(self) -> dict[str, dict[str, Any]]:
        """{row: its settings}"""
        return params(self.paper).variants_on(self.benchmark)

    def absent(self, store: pd.DataFrame, trials: Sequence[int], device: str, fresh: bool) -> list[Place]:
        """The trials that the store lacks under the present key."""
        keys = trial_lines.present_keys(self.paper, self.benchmark)
        places = []
        for name in self.variants():
            where = machine.device_of(device).type, str(self.execution(device))
            places += [
                (name, trial)
                for trial in (trials if fresh else trial_lines.missing(store, name, keys[name], trials, *where))
            ]
        return places

    def execution(self, device: str) -> Execution:
        return chosen(self.paper, self.benchmark, machine.device_of(device).type)

    def groups(self, places: Sequence[Place], device: str) -> list[Group]:
        """The computations that together hold these trials, first trials first."""
        version, how, groups = params(self.paper).version, self.execution(device), []
        for name, settings in self.variants().items():
            job = Job(
                self.benchmark, self.paper, name, self.attack, settings, version, 0, device, machine.commit(), how
            )
            wanted = [trial for place, trial in places if place == name]
            groups += [
                tuple(replace(job, trial=trial) for trial in members)
                for members in how.groups(wanted, self.benchmark.trials)
            ]
        return sorted(groups, key=lambda group: group[0].trial)


def stages(scale: Scale, paper: str | None, benchmark: str | None, results: Path) -> list[Stage]:
    """The stages of one paper, or of all; ConfigError when the paper does not run on the benchmark."""
    chosen = []
    for name in [paper] if paper else paper_names():
        runs = params(name).runs
        if benchmark is not None and benchmark not in runs:
            if paper:
                raise ConfigError(f"{paper} does not run on {benchmark!r}; its runs: {', '.join(runs)}")
            continue
        wanted = runs if benchmark is None else [benchmark]
        chosen += [Stage(name, config.benchmark(run, scale), results) for run in wanted]
    return chosen


def record_victims(scale: Scale, name: str | None, results: Path) -> list[Path]:
    """Train the victims that are trained by a recipe, where needed, and write their records."""
    written = []
    for run in [name] if name else config.benchmark_names():
        benchmark = config.benchmark(run, scale)
        if benchmark.network.weights == "fresh":
            if name:
                raise ConfigError(f"{run} draws a fresh network for every trial; there is no victim to train")
            continue
        machine.settle()
        folder = results / scale / "papers" / "victims" / run
        model = network(benchmark, 0)
        write_json(folder / "metrics.json", training.record(model, benchmark))
        training.keep_small_weights(benchmark, folder)
        written.append(folder)
    return written


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
    for stage in stages:  # a victim that many trials share is trained once, before they start
        if stage.benchmark.network.weights == "trained" and training.stored_weights(stage.benchmark) is None:
            machine.settle()
            network(stage.benchmark, 0)
    open_stages = {(s.paper, s.benchmark.name): _Open(s, trials, device, fresh) for s in stages}
    groups = [group for opened in open_stages.values() for group in opened.groups]
    for opened in open_stages.values():
        opened.finish_if_done()
    try:
        for group, outcomes in spread(attempt_group, groups, workers, died_twice):
            opened = open_stages[group[0].attack, group[0].benchmark.name]
            opened.add(group, outcomes)
            report(f"{opened.stage.paper} {opened.stage.benchmark.name}", opened.done, len(opened.absent))
            opened.finish_if_done()
    finally:
        for opened in open_stages.values():
            opened.keep()
    return sum(len(opened.absent) for opened in open_stages.values())


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
        self.stage, self.done = stage, 0
        self.store = trial_lines.frame() if fresh else trial_lines.read(stage.folder / "trials.csv")
        self.curves = _read_curve(stage.folder / "curve.csv", fresh)
        asked = range(stage.benchmark.trials) if trials is None else trials
        self.absent = stage.absent(self.store, asked, device, fresh)
        self.groups = stage.groups(self.absent, device)
        self.wanted = set(self.absent)
        self.waiting: list[tuple[Job, Outcome]] = []
        self.kept = time.monotonic()
        stage.folder.mkdir(parents=True, exist_ok=True)

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
        self.curves = _merge_curve(self.curves, [outcome.curve for _, outcome in new])
        write_curve(self.stage, self.curves)
        for job, outcome in new:
            keep_images(self.stage.images, job, outcome)

    def finish_if_done(self) -> None:
        if self.done == len(self.absent):
            self.keep()
            derive(self.stage)


def derive(stage: Stage) -> None:
    """Everything that follows from the store: aggregates, timing and the grid of pictures."""
    summarise(stage.folder, stage.paper, stage.benchmark)
    draw_grid(stage.folder / "grid.png", kept_images(stage))


def write_curve(stage: Stage, curves: pd.DataFrame) -> None:
    trial_lines.write_text(stage.folder / "curve.csv", curves.to_csv(index=False, float_format="%.6g"))


def _read_curve(path: Path, fresh: bool) -> pd.DataFrame:
    return pd.DataFrame(columns=CURVE) if fresh or not path.exists() else pd.read_csv(path)


def _merge_curve(curves: pd.DataFrame, news: Sequence[list[dict]]) -> pd.DataFrame:
    """The rows of a trial replace that trial's older ones."""
    new = pd.DataFrame([row for rows in news for row in rows], columns=CURVE)
    if new.empty:
        return curves
    place = ["variant", "trial", "device_kind"]
    if len(curves):
        fresh = set(new[place].itertuples(index=False, name=None))
        older = [row in fresh for row in curves[place].itertuples(index=False, name=None)]
        new = pd.concat([curves[~np.array(older)], new], ignore_index=True)
    return new.sort_values([*place, "step"], kind="stable", ignore_index=True)


def keep_images(folder: Path, job: Job, outcome: Outcome) -> None:
    """Keep the pictures of the first trials."""
    pictures = outcome.pictures()
    if job.trial >= GRID or pictures is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{job.variant}-{job.trial}.npz"
    with path.with_suffix(".part").open("wb") as file:
        np.savez_compressed(file, true=pictures[0], got=pictures[1])
    path.with_suffix(".part").replace(path)


def kept_images(stage: Stage) -> Gallery:
    """The pictures that are here, in the order of the variants."""
    gallery: Gallery = {name: {} for name in stage.variants()}
    for path in sorted(stage.images.glob("*.npz")):
        variant, trial = path.stem.rsplit("-", 1)
        if variant in gallery:
            with np.load(path) as pictures:
                gallery[variant][int(trial)] = pictures["true"], pictures["got"]
    return {name: trials for name, trials in gallery.items() if trials}


def draw_grid(path: Path, gallery: Gallery) -> None:
    """Truth above the reconstructions of every variant, for the first trials that all variants have a picture of."""
    common = sorted(set.intersection(*(set(trials) for trials in gallery.values()))) if gallery else []
    if not common:
        return
    true = np.concatenate([next(iter(gallery.values()))[trial][0] for trial in common])[:GRID]
    rows = {name: np.concatenate([trials[t][1] for t in common])[:GRID] for name, trials in gallery.items()}
    figures.grid(path, true, {name: got for name, got in rows.items() if len(got)})
