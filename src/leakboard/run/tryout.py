"""Trying an attack: its trials on a benchmark, kept in build/, and its row between the committed ones of its rivals."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd

from leakboard import config, engine_of
from leakboard.board import tables
from leakboard.board.readable import shown
from leakboard.config import Benchmark
from leakboard.record import trial_lines
from leakboard.record.results import Results
from leakboard.run import kept
from leakboard.run.jobs import Rows
from leakboard.run.opened import Opened, Report, failed_rows, run_all
from leakboard.run.trained import lacking


def rows_of(attack: str, benchmark: Benchmark, device: str) -> Rows:
    """The variants of a baseline, or the one attack in a file under the name of that file."""
    if attack in config.paper_names():
        params, path = config.params(attack), config.root() / "baselines" / attack / "attack.py"
        variants = params.variants_on(benchmark) or params.fitting(benchmark)
        return Rows(attack, path, params.version, variants, benchmark, device)
    path = Path(attack).resolve()
    if not path.is_file():
        papers = ", ".join(config.paper_names())
        raise config.ConfigError(f"{attack} is neither a file nor a paper; the papers are: {papers}")
    return Rows(path.stem, path, 0, {"default": {}}, benchmark, device)


def tried(
    attack: str,
    benchmark: Benchmark,
    trials: range | None,
    device: str,
    workers: int | Literal["ray"],
    report: Report,
) -> tuple[pd.DataFrame, Path, list[str]]:
    """(the board with the attack's rows in it, the picture of its reconstructions, why rows failed throughout).

    A call that was interrupted goes on where it stood, as long as file, settings, benchmark and engine are the same;
    what an attack's file imports from beside it is not looked at. A call that has ended starts anew.
    """
    rows = rows_of(attack, benchmark, device)
    chosen = range(benchmark.trials) if trials is None else trials
    # A file that is no attack fails here, once, and not in every worker.
    trainings = lacking(rows.attacks(chosen), device)
    folder = folder_of(rows)
    place = kept.Place(folder, folder / "reconstructions")
    place.prepare()
    run_all([_opened(rows, place, chosen)], trainings, workers, report)
    lines = trial_lines.read(place.file)
    asked = (lines["device_kind"] == rows.device_kind) & lines["trial"].isin(chosen)
    lines = lines[trial_lines.current(lines, keys_of(rows)) & asked].reset_index(drop=True)
    kept.draw_grid(folder / "grid.png", _pictures(place, lines, rows, chosen))
    board = tables.board_around(Results.at(benchmark.scale), benchmark.name, lines)
    return narrow(shown(board, benchmark)), folder / "grid.png", failed_rows(lines)


def runs() -> Path:
    """Where tries lie."""
    return config.root() / "build" / "runs"


def folder_of(rows: Rows) -> Path:
    """Where a try lies: each scale is another question."""
    return runs() / rows.attack / rows.benchmark.scale / rows.benchmark.name


def keys_of(rows: Rows) -> dict[str, trial_lines.Key]:
    """The key of every variant, from the file as it lies there now."""
    source, asked = trial_lines.attack_sha(rows.path), rows.benchmark.hash
    settings = {name: trial_lines.settings_hash(rows.path, dict(chosen)) for name, chosen in rows.variants.items()}
    return {name: (source, digits, asked, engine_of(rows.attack)) for name, digits in settings.items()}


def _opened(rows: Rows, place: kept.Place, chosen: range) -> Opened:
    """What lacks, or everything where nothing does. Groups are cut to what lacks: nobody waits for trials unasked."""
    lines, keys = trial_lines.read(place.file), keys_of(rows)
    where = rows.device_kind, str(rows.execution)
    absent = {name: trial_lines.missing(lines, name, key, chosen, *where) for name, key in keys.items()}
    outdated = lines[~trial_lines.current(lines, keys)]
    if not any(absent.values()):
        absent, outdated = {name: list(chosen) for name in keys}, lines
    wanted = {(variant, trial) for variant, listed in absent.items() for trial in listed}
    cut = [tuple(job for job in group if (job.variant, job.trial) in wanted) for group in rows.groups(absent)]
    return Opened(f"{rows.attack} {rows.benchmark.name}", place, cut, wanted, outdated, chosen[: kept.GRID])


def _pictures(place: kept.Place, lines: pd.DataFrame, rows: Rows, chosen: range) -> kept.Gallery:
    """Of the trials that ran; what lies there of others is older."""
    ran = lines[lines["status"] != "skipped"]
    there = set(zip(ran["variant"], ran["trial"], strict=True))
    found = kept.gallery(place.reconstructions, rows.variants, chosen[: kept.GRID])
    fitting = {name: {t: shown for t, shown in one.items() if (name, t) in there} for name, one in found.items()}
    return {name: one for name, one in fitting.items() if one}


def narrow(board: pd.DataFrame) -> pd.DataFrame:
    """What fits a terminal: rank, attack, the ranking metric and the next one, labels found, and the costs."""
    costs = ("label accuracy", "n", "failed", "evaluations", "seconds")
    return board[[*board.columns[:4], *(name for name in costs if name in board.columns[4:])]]
