"""How the cost of a gradient-matching step grows with image side, batch and network: one picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd

from leakboard.board.figures import COLOURS, STYLE, write_picture

AXES = {"side": "image side (pixels)", "batch": "images behind one gradient", "parameters": "parameters of the network"}
COSTS = {"seconds_per_step": "seconds per step", "peak_bytes": "peak memory (MB)"}
UNITS = {"seconds_per_step": 1.0, "peak_bytes": 1e6}


def growth(path: Path, frame: pd.DataFrame) -> None:
    """Write a PNG: seconds per step above, peak memory below, against image side, batch and number of parameters.

    frame: lines of `growth.csv`, of one kind of device. Both axes are logarithmic: a slope of one is proportional.
    """
    import seaborn
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    families = sorted(set(frame["network"]))
    with style.context(["default", STYLE, {"font.size": 11, "figure.constrained_layout.use": True}]):
        figure = Figure(figsize=(12, 6.4))
        FigureCanvasAgg(figure)
        cells = figure.subplots(len(COSTS), len(AXES), sharex="col", sharey="row")
        for column, (axis, label) in enumerate(AXES.items()):
            for row, (cost, name) in enumerate(COSTS.items()):
                lines = frame[frame["axis"] == axis]
                shown = lines.assign(**{cost: lines[cost] / UNITS[cost]})
                seaborn.lineplot(
                    shown, x=axis, y=cost, hue="network", hue_order=families, style="execution",
                    style_order=["loop", "compiled"], markers=True, dashes=[(1, 0), (3, 2)], markersize=7,
                    palette=dict(zip(families, COLOURS, strict=False)), ax=cells[row][column], legend=row + column == 0,
                    estimator=None,
                )  # fmt: skip
                cells[row][column].set(xscale="log", yscale="log", xlabel=label if row else "", ylabel=name)
            _marked(cells[-1][column], lines[axis])
        _legend(figure, cells[0][0])
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_picture(path, buffer.getvalue())


def _marked(axes: Any, values: pd.Series) -> None:
    """The values themselves as marks where they are few, powers of ten where they are many."""
    from matplotlib.ticker import NullLocator

    few = sorted(set(values))
    if len(few) <= 4:
        axes.set_xticks(few, [f"{value:g}" for value in few])
        axes.xaxis.set_minor_locator(NullLocator())


def _legend(figure: Any, first: Any) -> None:
    handles, labels = first.get_legend_handles_labels()
    first.get_legend().remove()
    kept = [pair for pair in zip(handles, labels, strict=True) if pair[1] not in ("network", "execution")]
    figure.legend(*zip(*kept, strict=True), loc="outside upper center", ncols=len(kept))
