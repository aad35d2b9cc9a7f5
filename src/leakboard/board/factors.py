"""Quality against a factor of the federation: a board's rows beside the same rows on boards that are `like` it and
differ by one number of clients, images, steps or rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from leakboard import config
from leakboard.board import figures
from leakboard.board.defence_table import scores
from leakboard.config import Benchmark
from leakboard.metrics import heading
from leakboard.record.results import Results

COLUMNS = ["factor", "x", "row", "metric", "score", "low", "high", "n"]
BESIDE = "retrieval"  # drawn too where a board has it: it tells a leak from a pretty picture
SET = {"clients": 2, "steps": 1, "epochs": 1, "rounds": 1}  # keys of a federation that are factors, all alike
DOUBLINGS = 8  # from so many times the least number on, the axis is one of doublings
PAST, EDGE = 0.25, 0.18  # of the spread of scores, what is shown beyond them; of what is shown, free at the ends
APART = 14  # points on paper over which the rows of one number are spread, so that intervals do not hide each other


def by_factor(results: Results, benchmark: Benchmark) -> pd.DataFrame:
    """`COLUMNS`: of the rows that stand on several of the boards along a factor, with the same settings, the score in
    the ranking metric and in `BESIDE`.

    Empty where no board is like this one but for one factor.
    """
    found = []
    for factor, boards in along(results, benchmark).items():
        first: dict[str, Any] = {}
        for x, board in boards:
            settings = _settings(board)
            first = settings | first
            for metric in dict.fromkeys((benchmark.metrics[0], *({BESIDE} & set(benchmark.metrics)))):
                found += [
                    (factor, x, row, metric, ours.ours, ours.low, ours.high, ours.n)
                    for row, ours in scores(results, board, metric).items()
                    if settings[row] == first[row] and math.isfinite(ours.ours)
                ]
    rows = pd.DataFrame(found, columns=COLUMNS)
    several = rows.groupby(["factor", "row", "metric"])["x"].transform("nunique") > 1
    return rows[several].reset_index(drop=True)


def along(results: Results, benchmark: Benchmark) -> dict[str, list[tuple[float, Benchmark]]]:
    """{factor: (its number, board) of this board and of those like it that ask nothing else otherwise}, in order.

    Only factors that have several boards. A search has as many steps on all of them: its budget grows with the gradient
    evaluations that a step takes.
    """
    if benchmark.federation is None or benchmark.target is not None:
        return {}
    own, found = factors(benchmark), {}
    family = [results.benchmark(name) for name in config.board_names() if config.like(name) == benchmark.name]
    others = [board for board in family if board.federation and _else(board) == _else(benchmark)]
    for factor in own:
        differing = [{name for name, x in factors(board).items() if x != own[name]} for board in others]
        alike = [board for board, names in zip(others, differing, strict=True) if names == {factor}]
        found[factor] = sorted(((factors(board)[factor], board) for board in (benchmark, *alike)), key=lambda at: at[0])
    return {factor: boards for factor, boards in found.items() if len(boards) > 1}


def factors(board: Benchmark) -> dict[str, float]:
    """{factor: its number on a board}. What a server sees is of one client, unless the messages are summed."""
    spec = board.federation
    if spec is None:
        return {}
    peers = spec.clients if "secure_aggregation" in board.defence else 1
    images = board.batch / (spec.clients - 1 if board.threat.attacker == "client" else peers)
    steps = spec.steps * spec.epochs * math.ceil(images / (spec.batch or images))
    return {"clients": spec.clients, "images a client": images, "local steps": steps, "rounds": spec.rounds}


def _else(board: Benchmark) -> tuple[str, float]:
    """What a board asks besides the factors, and how many steps its search has."""
    assert board.federation is not None
    numbers = factors(board)
    plain = {"version": 1, "batch": 1, "budget": 1, "federation": board.federation.model_copy(update=SET)}
    return board.model_copy(update=plain).hash, board.budget / (numbers["local steps"] * numbers["rounds"])


def _settings(board: Benchmark) -> dict[str, Any]:
    """{`paper / row`: what it sets}"""
    return {
        f"{paper} / {variant}": settings
        for paper in config.papers_on(board.name)
        for variant, settings in config.params(paper).variants_on(board).items()
    }


def drawing(rows: pd.DataFrame, metric: str) -> str:
    """A panel a factor, as SVG text: one metric of the rows against the number, a row in the same colour everywhere.

    Controls are dotted. What lies more than `PAST` of the spread of all scores beyond them is cut off: an interval of
    two trials may be endless.
    """
    own = rows[rows["metric"] == metric]

    def draw(panels: Sequence[Any]) -> None:
        for axes, (factor, points) in zip(panels, own.groupby("factor", sort=False), strict=True):
            _lines(axes, points, own)
            _numbers(axes, sorted(points["x"].unique()))
            axes.set(xlabel=factor)
        panels[0].set(ylim=_ends(own), ylabel=heading(metric))
        figures.legend(panels[-1])

    return figures.side_by_side(draw, own["factor"].nunique())


def _lines(axes: Any, points: pd.DataFrame, everywhere: pd.DataFrame) -> None:
    """The rows of one panel, side by side where they share a number; of a row of other panels an empty line, which the
    legend shows.
    """
    from matplotlib.transforms import offset_copy

    controls = {f"{paper} / {row}" for paper, row in config.controls()}
    counts = everywhere.groupby("row", sort=False)["n"]
    for index, (row, n) in enumerate(counts):
        label = f"{row} (n = {' to '.join(map(str, sorted({n.min(), n.max()})))})"
        aside = APART * ((index + 0.5) / counts.ngroups - 0.5)
        beside = offset_copy(axes.transData, axes.get_figure(), x=aside, units="points")
        look: dict[str, Any] = {
            "fmt": "o:" if row in controls else "o-",
            "markersize": 4,
            "elinewidth": 0.9,
            "transform": beside,
        }
        colour = figures.COLOURS[index % len(figures.COLOURS)]
        figures.line(axes, points[points["row"] == row], colour, label, **look)


def _ends(rows: pd.DataFrame) -> tuple[float, float]:
    """From where to where the score is shown."""
    least, most = rows["score"].min(), rows["score"].max()
    past = PAST * (most - least) or 1.0
    low, high = rows[["score", "low"]].min(axis=None), rows[["score", "high"]].max(axis=None)
    return max(low - EDGE * past, least - past), min(high + EDGE * past, most + past)


def _numbers(axes: Any, numbers: list[float]) -> None:
    """Exactly these on the x axis; of a wide range each doubling takes the same room."""
    least, most = numbers[0], numbers[-1]
    if most >= DOUBLINGS * least:
        axes.set_xscale("log", base=2)
        edge = (most / least) ** EDGE
        axes.set_xlim(least / edge, most * edge)
    else:
        axes.set_xlim(least - EDGE * (most - least), most + EDGE * (most - least))
    axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
    axes.set_xticks([], minor=True)
