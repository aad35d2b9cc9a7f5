"""Trying an attack on development victims: images after the official ones, which no board ever reports.

What is chosen by looking at official victims is fitted to them, and its row says more than is true. So tuning has a
place of its own: a board of the attack and of the controls on the same victims, with no rank and no rival beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pandas as pd

from leakboard import config
from leakboard.board import tables
from leakboard.board.readable import shown
from leakboard.config import CONTROLS, Benchmark, ConfigError
from leakboard.data.sources import refuse_too_many
from leakboard.recipes.trained import Need, refuse
from leakboard.record import trial_lines
from leakboard.run import tryout
from leakboard.run.jobs import Rows
from leakboard.run.opened import Report
from leakboard.run.trained import priors_of
from leakboard.victim.secrets import development_slice, development_trials, official_trials

NAME = "development"

Tried = tuple[pd.DataFrame, Path, list[str]]  # board, picture, why rows failed throughout


def trier(victims: str) -> Callable[..., Tried]:
    """What tries an attack on these victims: `official` ones or `development`. ConfigError for another word."""
    known = {"official": tried_officially, NAME: tried}
    if victims not in known:
        raise ConfigError(f"no victims {victims!r}; there are: {', '.join(known)}")
    return known[victims]


def tried_officially(
    attack: str,
    benchmark: Benchmark,
    trials: range | None,
    device: str,
    workers: int | Literal["ray"],
    report: Report,
) -> Tried:
    """`tryout.tried` on official trials alone; DataError where one of those asked for is none."""
    chosen = official_trials(benchmark, trials)
    if trials and trials.stop > benchmark.trials:
        raise ConfigError(
            f"--trials {trials.start}:{trials.stop}: {benchmark.name} has {benchmark.trials} trials at "
            f"{benchmark.scale} scale, the last one is {benchmark.trials - 1}; without --trials all of them run"
        )
    refuse_too_many(benchmark, chosen)
    return tryout.tried(attack, benchmark, chosen, device, workers, report)


def tried(
    attack: str,
    benchmark: Benchmark,
    trials: range | None,
    device: str,
    workers: int | Literal["ray"],
    report: Report,
) -> Tried:
    """(board of the attack and the controls on development victims, picture, why rows failed throughout).

    trials: which of the development trials, the first of them being 0; None: all, up to 100. The lines lie with those
    of other tries, in build/; no store and no board takes them. DataError when there are no such victims, or a prior
    has been trained on them.
    """
    chosen = chosen_of(benchmark, trials)
    rows = tryout.rows_of(attack, benchmark, device)
    _refuse_seen(rows, chosen)
    found = tryout.tried(attack, benchmark, chosen, device, workers, report)
    boards = [_board(rows, chosen)]
    if CONTROLS in config.paper_names() and rows.attack != CONTROLS:
        tryout.tried(CONTROLS, benchmark, chosen, device, workers, report)
        boards.append(_board(tryout.rows_of(CONTROLS, benchmark, device), chosen))
    joined = pd.concat([board for board in boards if len(board)], ignore_index=True)
    apart = tables.ranked(joined).assign(rank=NAME, note="")
    return tryout.narrow(shown(apart, benchmark)), found[1], found[2]


def chosen_of(benchmark: Benchmark, trials: range | None) -> range:
    """The numbers of the development trials that are asked for by their place among them. DataError if it has none."""
    there = development_trials(benchmark)
    if trials is None:
        return there
    if not (chosen := there[trials.start : trials.stop]):
        raise ConfigError(
            f"{benchmark.name} has {len(there)} development trials at {benchmark.scale} scale, the first one is 0; "
            f"there is no trial {trials.start}"
        )
    return chosen


def _refuse_seen(rows: Rows, chosen: range) -> None:
    """DataError where the prior of a row was, or would be, trained on one of these victims."""
    if "prior" not in rows.benchmark.threat.knows:
        return
    for benchmark, attack, trials in rows.attacks(chosen):
        for recipe in priors_of(attack, benchmark, trials):
            refuse(Need("prior", recipe), benchmark, development_slice(benchmark, trials))


def _board(rows: Rows, chosen: range) -> pd.DataFrame:
    """The rows of one attack, from the lines of its try."""
    lines = trial_lines.read(tryout.folder_of(rows) / "trials.csv")
    asked = (lines["device_kind"] == rows.device_kind) & lines["trial"].isin(chosen)
    current = lines[trial_lines.current(lines, tryout.keys_of(rows)) & asked]
    return tables.rows(rows.attack, rows.benchmark, current.reset_index(drop=True))
