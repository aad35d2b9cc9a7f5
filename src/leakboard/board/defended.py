"""What a defence buys, and what it costs: a board's rows beside the same rows on boards that ask it under a defence.

Figures are of the boards that ask the same question but for one setting of one defence; `defence_table.py` has all.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from leakboard.board import figures
from leakboard.board.defence_table import boards, scores
from leakboard.config import Benchmark
from leakboard.metrics import heading
from leakboard.record.prices import price_of
from leakboard.record.results import Results

COLUMNS = ["defence", "strength", "row", "score", "low", "high", "n", "utility"]


def under_defence(results: Results, benchmark: Benchmark, metric: str | None = None) -> pd.DataFrame:
    """Every row's score, `COLUMNS`: on this board, and where it differs by one defence of one setting alone.

    strength: of the defence, 0 for none. metric: that which ranks the board, where none is named. utility: accuracy of
    the network trained under it, NaN where nobody measured it. Empty where no board asks the same under a defence.
    """
    others = [] if benchmark.defence else [board for board in boards(results) if len(board.defence) == 1]
    siblings = [(name, strength, other) for other in others for name, strength in _differs(benchmark, other)]
    found = []
    for defence in sorted({name for name, _, _ in siblings}):
        strengths = [(0.0, benchmark), *((strength, other) for name, strength, other in siblings if name == defence)]
        for strength, board in sorted(strengths, key=lambda pair: pair[0]):
            rows = scores(results, board, metric or benchmark.metrics[0])
            found += [
                (defence, strength, row, ours.ours, ours.low, ours.high, ours.n, _utility(results, board))
                for row, ours in rows.items()
            ]
    return pd.DataFrame(found, columns=COLUMNS)


def _differs(benchmark: Benchmark, other: Benchmark) -> list[tuple[str, float]]:
    """(defence and setting, its value) if this is all that the other board adds."""
    acting = [(f"{name} {key}", value) for name, settings in other.defence.items() for key, value in settings.items()]
    strengths = [(key, value) for key, value in acting if isinstance(value, float)]
    alike = (other.data, other.network, other.threat) == (benchmark.data, benchmark.network, benchmark.threat)
    same = alike and len(strengths) == 1 and other.model_copy(update={"defence": {}}).hash == benchmark.hash
    return strengths if same else []


def _utility(results: Results, board: Benchmark) -> float:
    price = price_of(results, board)
    return math.nan if price is None else price.accuracy


# ---------------------------------------------------------------------------------------------------------------------
# Figures, one a defence.


def drawable(rows: pd.DataFrame) -> bool:
    """Whether any row stands on several of the boards: where most have not run yet there is nothing to compare."""
    return bool((rows.groupby("row")["strength"].nunique() > 1).any())


def drawing(rows: pd.DataFrame, metric: str) -> str:
    """The rows that stand on several of the boards, as SVG text: score against strength, evenly spaced."""
    strengths = sorted(rows["strength"].unique())
    place = {strength: index for index, strength in enumerate(strengths)}

    def draw(axes: Any) -> None:
        _lines(axes, rows.assign(x=rows["strength"].map(place)))
        axes.set_xticks(range(len(strengths)), ["none" if not one else f"{one:g}" for one in strengths])
        axes.set(xlabel=str(rows["defence"].iloc[0]), ylabel=heading(metric))
        figures.legend(axes)

    return figures.svg(draw)


def drawable_utility(rows: pd.DataFrame) -> bool:
    """Whether two strengths at least have a price, one of them none."""
    priced = rows.dropna(subset="utility")
    return bool(len(priced)) and priced["strength"].nunique() > 1 and bool((priced["strength"] == 0).any())


def utility_drawing(rows: pd.DataFrame, metric: str) -> str:
    """Leak against utility, as SVG text: one line an attack, one point a strength; no defence is a ring."""
    priced = rows.dropna(subset="utility")

    def draw(axes: Any) -> None:
        _lines(axes, priced.assign(x=priced["utility"]))
        bare = priced[priced["strength"] == 0]
        ring = {"s": 120, "facecolors": "none", "edgecolors": "#222222", "zorder": 3}
        axes.scatter(bare["utility"], bare["score"], label="no defence", **ring)
        axes.set(xlabel=f"accuracy of the network trained under {rows['defence'].iloc[0]}", ylabel=heading(metric))
        figures.legend(axes)

    return figures.svg(draw)


def _lines(axes: Any, rows: pd.DataFrame) -> None:
    """One line for every row that has several strengths, in their order, at `x`."""
    figures.scored(axes, rows.groupby("row").filter(lambda one: one["strength"].nunique() > 1))
