"""What a defence buys: the rows of a board beside the same rows on the boards that ask its question under a defence."""

from __future__ import annotations

from typing import Any

import pandas as pd

from leakboard import config
from leakboard.board import figures
from leakboard.board.estimates import estimate, most_trials, samples
from leakboard.config import Benchmark
from leakboard.metrics import heading
from leakboard.record.results import Results

COLUMNS = ["defence", "strength", "row", "score", "low", "high", "n"]


def under_defence(results: Results, benchmark: Benchmark, metric: str | None = None) -> pd.DataFrame:
    """Every row's score, `COLUMNS`: on this board, and where it differs by one defence of one setting alone.

    strength: of the defence, 0 for none. metric: that which ranks the board, where none is named. Empty where no board
    asks the same under a defence.
    """
    siblings = [(name, strength, other) for other in _boards(results) for name, strength in _differs(benchmark, other)]
    found = []
    for defence in sorted({name for name, _, _ in siblings}):
        boards = [(0.0, benchmark), *((strength, other) for name, strength, other in siblings if name == defence)]
        for strength, board in sorted(boards, key=lambda pair: pair[0]):
            found += [(defence, strength, *row) for row in _rows(results, board, metric or benchmark.metrics[0])]
    return pd.DataFrame(found, columns=COLUMNS)


def _boards(results: Results) -> list[Benchmark]:
    return [results.benchmark(name) for name in config.board_names()]


def _differs(benchmark: Benchmark, other: Benchmark) -> list[tuple[str, float]]:
    """(defence and setting, its value) if this is all that the other board adds."""
    acting = [(f"{name} {key}", value) for name, settings in other.defence.items() for key, value in settings.items()]
    alone = len(acting) == 1 and not benchmark.defence
    same = alone and other.model_copy(update={"defence": {}}).hash == benchmark.hash
    return acting if same else []


def _rows(results: Results, board: Benchmark, metric: str) -> list[tuple[Any, ...]]:
    found = []
    for paper in config.papers_on(board.name):
        lines = results.current_lines(paper, board.name)
        for variant in config.params(paper).variants_on(board):
            chosen = most_trials(samples(lines, variant, metric, board.batch))
            if chosen is not None and (ours := estimate(chosen.values, metric, chosen.batch)).exists:
                found.append((f"{paper} / {variant}", ours.ours, ours.low, ours.high, ours.n))
    return found


def drawing(rows: pd.DataFrame, metric: str) -> str:
    """The rows that stand on several of the boards, as SVG text: score against strength, evenly spaced."""
    strengths = sorted(rows["strength"].unique())
    place = {strength: index for index, strength in enumerate(strengths)}
    several = rows.groupby("row").filter(lambda one: one["strength"].nunique() > 1)

    def draw(axes: Any) -> None:
        for index, (row, points) in enumerate(several.groupby("row", sort=False)):
            ends = [points["score"] - points["low"], points["high"] - points["score"]]
            x = [place[strength] for strength in points["strength"]]
            colour, label = figures.COLOURS[index % len(figures.COLOURS)], f"{row} (n = {points['n'].max()})"
            axes.errorbar(x, points["score"], yerr=ends, fmt="o-", color=colour, label=label, capsize=2)
        axes.set_xticks(range(len(strengths)), ["none" if not one else f"{one:g}" for one in strengths])
        axes.set(xlabel=str(rows["defence"].iloc[0]), ylabel=heading(metric))
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=8)

    return figures.svg(draw)
