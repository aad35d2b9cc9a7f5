"""Trying an attack: its trials on a benchmark, kept in build/, and its row between the committed ones of its rivals."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd

from leakboard import config
from leakboard.board import tables
from leakboard.board.readable import shown
from leakboard.config import Benchmark
from leakboard.record import trial_lines
from leakboard.record.results import Results
from leakboard.run import kept
from leakboard.run.jobs import Rows
from leakboard.run.stage import Report, died_twice
from leakboard.run.trained import train
from leakboard.run.trial import Job, Outcome, attempt_group
from leakboard.run.workers import spread


def rows_of(attack: str, benchmark: Benchmark, device: str) -> Rows:
    """The variants of a baseline, or the one attack in a file under the name of that file."""
    if attack in config.paper_names():
        params, path = config.params(attack), config.root() / "baselines" / attack / "attack.py"
        everywhere = {name: params.settings(name, benchmark.name) for name in params.variants}
        return Rows(attack, path, params.version, params.variants_on(benchmark) or everywhere, benchmark, device)
    path = Path(attack).resolve()
    if not path.is_file():
        papers = ", ".join(config.paper_names())
        raise config.ConfigError(f"{attack} is neither a file nor a paper; the papers are: {papers}")
    return Rows(path.stem, path, 0, {"default": {}}, benchmark, device)


def board_with(
    attack: str,
    benchmark: Benchmark,
    trials: range | None,
    device: str,
    workers: int | Literal["ray"],
    report: Report,
) -> tuple[pd.DataFrame, Path]:
    """(the board with the attack's rows in it, the picture of its reconstructions)."""
    rows = rows_of(attack, benchmark, device)
    chosen = range(benchmark.trials) if trials is None else trials
    train(rows.attacks())  # a file that is no attack fails here, once, and not in every worker
    whole = rows.groups(dict.fromkeys(rows.variants, chosen))
    groups = [tuple(job for job in group if job.trial in chosen) for group in whole]
    outcomes: list[tuple[Job, Outcome]] = []
    for group, ends in spread(attempt_group, groups, workers, died_twice):
        outcomes += zip(group, ends, strict=True)
        report(f"{rows.attack} {benchmark.name}", len(outcomes), len(chosen) * len(rows.variants))
    outcomes.sort(key=lambda pair: (pair[0].variant, pair[0].trial))
    folder = config.root() / "build" / "runs" / rows.attack / benchmark.name
    lines = trial_lines.frame([outcome.line for _, outcome in outcomes])
    trial_lines.write(folder / "trials.csv", lines)
    pictures: kept.Gallery = {}
    for job, outcome in outcomes:
        if outcome.pictures is not None:
            pictures.setdefault(job.variant, {})[job.trial] = outcome.pictures
    kept.draw_grid(folder / "grid.png", pictures)
    board = tables.board_around(Results.at(benchmark.scale), benchmark.name, lines)
    return narrow(shown(board, benchmark)), folder / "grid.png"


def narrow(board: pd.DataFrame) -> pd.DataFrame:
    """What fits a terminal: rank, attack, the ranking metric and the next one, labels found, and the costs."""
    costs = ("label accuracy", "n", "failed", "evaluations", "seconds")
    return board[[*board.columns[:4], *(name for name in costs if name in board.columns[4:])]]
