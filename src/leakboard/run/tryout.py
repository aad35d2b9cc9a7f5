"""Trying an attack: its trials on a benchmark, kept in build/, and its row between the committed ones of its rivals."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd

from leakboard import config
from leakboard.attack import contract
from leakboard.board import tables
from leakboard.config import Benchmark
from leakboard.record import trial_lines
from leakboard.run import execution, machine
from leakboard.run.stage import Gallery, Group, Report, died_twice, draw_grid
from leakboard.run.trial import Job, Outcome, attempt_group
from leakboard.run.workers import spread


def groups_of(attack: str, benchmark: Benchmark, trials: range | None, device: str) -> list[Group]:
    """The trials of a baseline's variants, or of the one attack in a file under the name of that file."""
    chosen = range(benchmark.trials) if trials is None else trials
    if attack in config.paper_names():
        path = config.root() / "baselines" / attack / "attack.py"
        params = config.params(attack)
        everywhere = {name: params.settings(name, benchmark.name) for name in params.variants}
        variants = params.variants_on(benchmark) or everywhere
    else:
        path, variants = Path(attack).resolve(), {"default": {}}
        if not path.is_file():
            papers = ", ".join(config.paper_names())
            raise config.ConfigError(f"{attack} is neither a file nor a paper; the papers are: {papers}")
    kind = machine.device_of(device).type
    contract.load(path)  # a file that is no attack fails here, once, and not in every worker
    name = attack if attack in config.paper_names() else path.stem
    how = execution.chosen(name, benchmark, kind)
    return [
        tuple(
            Job(benchmark, name, variant, path, settings, 0, trial, device, machine.commit(), how)
            for trial in members
            if trial in chosen
        )
        for members in how.groups(chosen, benchmark.trials)
        for variant, settings in variants.items()
    ]


def board_with(
    attack: str,
    benchmark: Benchmark,
    trials: range | None,
    device: str,
    workers: int | Literal["ray"],
    report: Report,
) -> tuple[pd.DataFrame, Path]:
    """(the board with the attack's rows in it, the picture of its reconstructions)."""
    groups = groups_of(attack, benchmark, trials, device)
    name, count = groups[0][0].attack, sum(map(len, groups))
    outcomes: list[tuple[Job, Outcome]] = []
    for group, ends in spread(attempt_group, groups, workers, died_twice):
        outcomes += zip(group, ends, strict=True)
        report(f"{name} {benchmark.name}", len(outcomes), count)
    outcomes.sort(key=lambda pair: (pair[0].variant, pair[0].trial))
    lines = trial_lines.frame([outcome.line for _, outcome in outcomes])
    folder = config.root() / "build" / "runs" / name / benchmark.name
    trial_lines.write(folder / "trials.csv", lines)
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
