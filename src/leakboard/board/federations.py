"""A federated training in two pictures: who holds which images, and what came of it round by round."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leakboard.board.figures import COLOURS, STYLE, write_picture

EVERY, MOST_NUMBERS = 20, 400  # marks on an axis, and numbers in cells, before they would lie on one another


def training(path: Path, frame: pd.DataFrame, title: str) -> None:
    """Write a PNG: accuracy and cross-entropy of the global model against the round. frame: round, accuracy, loss."""

    def draw(figure: Any) -> None:
        cells = figure.subplots(1, 2)
        for axes, name, unit, colour in zip(cells, ("accuracy", "loss"), ("", " (nats)"), COLOURS, strict=False):
            axes.plot(frame["round"], frame[name], "o-", color=colour, markersize=4)
            axes.set(xlabel="round", ylabel=f"{name} on test images{unit}")
            axes.xaxis.get_major_locator().set_params(integer=True)
        cells[0].set_ylim(0, 1)
        figure.suptitle(title)

    _write(path, (9, 3.6), draw)


def partition(path: Path, counts: Sequence[Sequence[int]], left_out: str, title: str) -> None:
    """Write a PNG: images of each class (columns) that each client (rows) holds. counts: (clients, classes).

    left_out: words for what nobody holds, shown below; '' where that is nothing.
    """
    held = np.asarray(counts)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.grid(False)
        shown = axes.imshow(held, cmap="Blues", vmin=0, aspect="auto")
        if held.size <= MOST_NUMBERS:
            for (client, label), count in np.ndenumerate(held):
                colour = "white" if count > held.max() / 2 else "black"
                axes.text(label, client, str(count), ha="center", va="center", fontsize=7, color=colour)
        axes.set(xlabel="class", ylabel="client", title=title)
        for count, ticks in zip(held.shape, (axes.set_yticks, axes.set_xticks), strict=True):
            ticks(range(0, count, 1 + count // EVERY))
        figure.colorbar(shown, label="images")
        figure.supxlabel(left_out or "every image is somebody's", fontsize=8)

    _write(path, (8, 1.8 + 0.35 * len(held)), draw)


def _write(path: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> None:
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style.context(["default", STYLE, {"figure.constrained_layout.use": True}]):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_picture(path, buffer.getvalue())
