"""What more starts buy: the rows of a board that differ by nothing but how many starts they choose the best of."""

from __future__ import annotations

from typing import Any

import pandas as pd

from leakboard import config
from leakboard.board import figures
from leakboard.board.estimates import score_of
from leakboard.config import Benchmark, digest
from leakboard.metrics import heading
from leakboard.record.results import Results

COLUMNS = ["row", "restarts", "score", "low", "high", "n"]
SETTING = "restarts"  # what attacks call it, and the column in which they say how many they had


def by_restarts(results: Results, benchmark: Benchmark) -> pd.DataFrame:
    """`COLUMNS`: of rows alike in all other settings the score by restarts, named after the first of them.

    Empty where no two rows of a paper are such.
    """
    found = []
    for paper in config.papers_on(benchmark.name):
        alike: dict[str, list[str]] = {}
        for variant, settings in config.params(paper).variants_on(benchmark).items():
            others = digest({name: value for name, value in settings.items() if name != SETTING})
            alike.setdefault(others, []).append(variant)
        lines = results.current_lines(paper, benchmark.name)
        for first, variant in ((group[0], variant) for group in alike.values() if len(group) > 1 for variant in group):
            own = lines.loc[lines["variant"] == variant, SETTING].dropna()
            ours = score_of(lines, variant, benchmark.metrics[0], benchmark.batch)
            if ours.exists and own.nunique() == 1:
                found.append((f"{paper} / {first}", own.iloc[0], ours.ours, ours.low, ours.high, ours.n))
    rows = pd.DataFrame(found, columns=COLUMNS)
    return rows[rows["row"].map(rows.groupby("row")["restarts"].nunique()) > 1]


def drawing(rows: pd.DataFrame, metric: str) -> str:
    """Score against restarts, as SVG text."""

    def draw(axes: Any) -> None:
        own = [points.sort_values("restarts") for _, points in rows.groupby("row", sort=False)]
        figures.scored(axes, pd.concat(own).assign(x=lambda one: one["restarts"]))
        axes.set_xticks(sorted(rows["restarts"].unique()))
        axes.set(xlabel="starts, the best by the attack's own score handed in", ylabel=heading(metric))
        figures.legend(axes)

    return figures.svg(draw)
