"""Trying an attack: its trials on a benchmark, kept in build/, and its row between the committed ones of its rivals."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from leakboard import config, machine
from leakboard.attack import contract
from leakboard.board import records, tables
from leakboard.config import Benchmark
from leakboard.run import Job, Outcome, attempt
from leakboard.run import lost as lost_trial
from leakboard.stage import Gallery, Report, draw_grid
from leakboard.workers import spread


def jobs_of(attack: str, benchmark: Benchmark, trials: range | None, device: str) -> list[Job]:
    """The trials of a baseline's variants, or of the one attack in a file under the name of that file."""
    chosen = range(benchmark.trials) if trials is None else trials
    if attack in config.paper_names():
        path = config.root() / "baselines" / attack / "attack.py"
        params = config.params(attack)
        variants = {n: v.settings_for(benchmark.name) for n, v in params.variants.items()}
        if benchmark.name in params.runs:
            variants = {n: variants[n] for n in params.variants_on(benchmark.name)}
    else:
        path, variants = Path(attack).resolve(), {"default": {}}
        if not path.is_file():
            papers = ", ".join(config.paper_names())
            raise config.ConfigError(f"{attack} is neither a file nor a paper; the papers are: {papers}")
    machine.device_of(device)
    contract.load(path)  # a file that is no attack fails here, once, and not in every worker
    name = attack if attack in config.paper_names() else path.stem
    return [
        Job(benchmark, name, variant, path, settings, 0, trial, device, machine.commit())
        for trial in chosen
        for variant, settings in variants.items()
    ]


def board_with(
    attack: str,
    benchmark: Benchmark,
    trials: range | None,
    device: str,
    workers: int,
    report: Report,
) -> tuple[pd.DataFrame, Path]:
    """(the board with the attack's rows in it, the picture of its reconstructions)."""
    jobs = jobs_of(attack, benchmark, trials, device)
    outcomes: list[tuple[Job, Outcome]] = []
    for job, outcome in spread(attempt, jobs, workers, lost_trial):
        outcomes.append((job, outcome))
        report(f"{job.attack} {benchmark.name}", len(outcomes), len(jobs))
    outcomes.sort(key=lambda pair: (pair[0].variant, pair[0].trial))
    lines = records.frame([outcome.line for _, outcome in outcomes])
    folder = config.root() / "build" / "runs" / jobs[0].attack / benchmark.name
    records.write(folder / "trials.csv", lines)
    board = tables.board_around(benchmark.name, benchmark.scale, lines)
    gallery: Gallery = {}
    for job, outcome in outcomes:
        if (pictures := outcome.pictures()) is not None:
            gallery.setdefault(job.variant, {})[job.trial] = pictures
    draw_grid(folder / "grid.png", gallery)
    return narrow(tables.shown(board, benchmark)), folder / "grid.png"


def narrow(board: pd.DataFrame) -> pd.DataFrame:
    """What fits a terminal: rank, attack, the ranking metric and the next one, labels found, and the costs."""
    costs = ("label accuracy", "n", "failed", "evaluations", "seconds")
    return board[[*board.columns[:4], *(name for name in costs if name in board.columns[4:])]]
