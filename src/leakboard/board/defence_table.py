"""Attacks by defences: one table of a board and of those that are `like` it and defended, with what each defence costs.

No torch.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from leakboard import config
from leakboard.board.estimates import Estimate, score_of
from leakboard.board.readable import cell, defence_text
from leakboard.config import Benchmark
from leakboard.record.prices import price_of, without_defence
from leakboard.record.results import Results


def boards(results: Results) -> list[Benchmark]:
    """Every board of one scale."""
    return [results.benchmark(name) for name in config.board_names()]


def scores(results: Results, board: Benchmark, metric: str) -> dict[str, Estimate]:
    """{`paper / row`: its score on a board}, of the rows that have one."""
    found = {}
    for paper in config.papers_on(board.name):
        lines = results.current_lines(paper, board.name)
        for variant in config.params(paper).variants_on(board):
            if (ours := score_of(lines, variant, metric, board.batch)).exists:
                found[f"{paper} / {variant}"] = ours
    return found


def attack_by_defence(results: Results, benchmark: Benchmark) -> pd.DataFrame:
    """Rows attacks, columns this board and its family, cells the board's metric with its interval, as text for readers.

    The head of a column says the defence, what it costs, and how many trials and images are behind it. Empty where the
    family has no defence, or nothing has run.
    """
    asked = [] if benchmark.defence else [benchmark, *_family(results, benchmark)]
    if len(asked) < 2:
        return pd.DataFrame()
    metric = benchmark.metrics[0]
    found = [scores(results, board, metric) for board in asked]
    rows = list(dict.fromkeys(row for column in found for row in column))
    if not rows:
        return pd.DataFrame()
    lines = [
        [row, *(cell(metric, ours.ours, ours.low, ours.high) if (ours := own.get(row)) else "-" for own in found)]
        for row in rows
    ]
    return pd.DataFrame(lines, columns=["attack", *(_head(results, board) for board in asked)])


def _family(results: Results, benchmark: Benchmark) -> list[Benchmark]:
    """By the name of the defence, then by its strengths."""
    family = [results.benchmark(name) for name in config.board_names() if config.like(name) == benchmark.name]
    return sorted((board for board in family if board.defence), key=_order)


def _order(board: Benchmark) -> list[Any]:
    strengths = {
        name: sorted((key, value) for key, value in settings.items() if isinstance(value, float))
        for name, settings in board.defence.items()
    }
    return sorted(strengths.items())


def _head(results: Results, board: Benchmark) -> str:
    price = price_of(results, board)
    parts = ["utility -" if price is None else f"utility {price.accuracy:.3f}", f"n = {board.trials}"]
    parts += [f"{board.batch} images"] if board.batch > 1 else []
    return f"{defence_text(board)}: {', '.join(parts)}"


def price_sentence(results: Results, benchmark: Benchmark) -> str:
    """What the defence of a board costs, in a sentence; nothing where it has no price, or nobody measured it."""
    price, plain = price_of(results, benchmark), without_defence(results, benchmark)
    if price is None:
        return ""
    beside = "" if plain is None else f", without a defence {plain.accuracy:.3f}"
    under = f"under {defence_text(benchmark)}" if benchmark.defence else "without a defence"
    said = f"Utility: the same network, trained {under} for {price.steps:,} steps, has accuracy {price.accuracy:.3f}"
    spent = ""
    if price.delta is not None:
        bound = "without bound" if price.epsilon is None else f"{price.epsilon:.3g}"
        spent = f" That training spends epsilon {bound} at delta {price.delta:g} (opacus' accountant)."
    return f"{said}{beside} ({price.images:,} test images).{spent}"
