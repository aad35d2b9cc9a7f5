"""Trying an attack: its trials on a benchmark, kept in build/, and its row between the committed ones of its rivals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from leakboard import config, machine
from leakboard.attack import contract
from leakboard.board import figures, records, tables
from leakboard.config import Benchmark
from leakboard.run import Job, Outcome, attempt
from leakboard.run import lost as lost_trial
from leakboard.stage import GRID, Report
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
    return narrow(tables.shown(board, benchmark)), _picture(folder / "grid.png", outcomes)


def narrow(board: pd.DataFrame) -> pd.DataFrame:
    """What fits a terminal: rank, attack, the ranking metric and the next one, labels found, and the costs."""
    costs = ("label accuracy", "n", "failed", "evaluations", "seconds")
    return board[[*board.columns[:4], *(name for name in costs if name in board.columns[4:])]]


def _picture(path: Path, outcomes: list[tuple[Job, Outcome]]) -> Path:
    """The grid over the first trials that every variant has a picture of."""
    rows: dict[str, dict[int, np.ndarray]] = {}
    true: dict[int, np.ndarray] = {}
    for job, outcome in outcomes:
        if outcome.true is not None and outcome.got is not None:
            rows.setdefault(job.variant, {})[job.trial] = outcome.got.numpy()
            true[job.trial] = outcome.true.numpy()
    common = sorted(trial for trial in true if all(trial in images for images in rows.values()))
    if common:
        shown = {name: np.concatenate([images[t] for t in common])[:GRID] for name, images in rows.items()}
        figures.grid(path, np.concatenate([true[t] for t in common])[:GRID], shown)
    return path
