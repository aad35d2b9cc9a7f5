"""Pictures: reconstructions beside the truth, quality over cost. The same input gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from leakboard.board.tables import of_controls
from leakboard.metrics import heading
from leakboard.record.intervals import of_mean
from leakboard.record.saving import write_bytes, write_text

MOST_COLUMNS = 10
MOST_BYTES = 150_000
# (columns, side of a picture in pixels): the first whose file is small enough is taken
LAYOUTS = ((10, 84), (8, 84), (8, 64), (6, 64), (4, 64), (4, 48), (2, 48), (1, 32))
GAP, LINE = 6, 13  # pixels between pictures; height of a line of text
TRUTH = "truth"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#555555")
AXES = (0.075, 0.15, 0.58, 0.81)  # left, bottom, width, height of the figure; the legend stands at the right
BETWEEN = 0.02  # of the figure, between axes side by side
DASHES = ("-", "--", ":", "-.")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "leakboard", "svg.fonttype": "path", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6, "axes.edgecolor": "#888888", "legend.frameon": False,
}  # fmt: skip


def grid(
    path: Path, true: np.ndarray, rows: Mapping[str, np.ndarray], captions: Mapping[str, str] | None = None
) -> None:
    """Write a PNG: the truth above, one row per variant below, the PSNR in dB under each picture.

    true and each of `rows`: (n, C, H, W) in [0, 1], C = 1 or 3, matched pairwise; an image that is not finite is left
    blank. captions: what to write for a variant. Black is 0 and white is 1 in every picture; pixels are enlarged by
    repetition. At most `MOST_COLUMNS` pictures a row and `MOST_BYTES`: where need be, fewer and smaller ones.
    """
    true = np.asarray(true, dtype=float)
    named = {(captions or {}).get(name, name): np.asarray(images, dtype=float) for name, images in rows.items()}
    wrong = {name: images.shape for name, images in named.items() if images.shape != true.shape}
    if true.ndim != 4 or true.shape[1] not in (1, 3) or wrong:
        raise ValueError(f"truth has shape {true.shape}, expected (n, 1 or 3, H, W); of another shape: {wrong}")
    content = b""
    for columns, side in LAYOUTS:
        content = _png(_compared(true[:columns], {name: images[:columns] for name, images in named.items()}, side))
        if len(content) <= MOST_BYTES:
            break
    write_picture(Path(path), content)


def lapse(path: Path, rows: Mapping[str, np.ndarray], steps: Sequence[str]) -> None:
    """Write a PNG: a line of pictures (S, C, H, W) in [0, 1] for each of `rows`, the step of each below the last one.

    A row that has fewer steps than `steps` (S,) is blank from there on.
    """
    tiles = {name: [_tile(np.asarray(image, dtype=float), 56) for image in images] for name, images in rows.items()}
    write_picture(Path(path), _png(_sheet(tiles, {list(tiles)[-1]: steps})))


def write_picture(path: Path, content: bytes) -> None:
    """Whole or not at all; SaveError says why not."""
    write_bytes(path, content)


def _png(sheet: Any) -> bytes:
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _compared(true: np.ndarray, rows: Mapping[str, np.ndarray], side: int) -> Any:
    """The truth (n, C, H, W) above the rows, with the PSNR under each picture of these."""
    tiles = {name: [_tile(image, side) for image in images] for name, images in {TRUTH: true, **rows}.items()}
    under = {name: [_psnr_text(*pair) for pair in zip(true, images, strict=True)] for name, images in rows.items()}
    return _sheet(tiles, {TRUTH: [""] * len(true), **under})


def _sheet(tiles: Mapping[str, Sequence[np.ndarray]], under: Mapping[str, Sequence[str]]) -> Any:
    """The whole picture as a PIL image, grey when all tiles are. under: what is written below the tiles of a row."""
    from PIL import Image, ImageDraw

    first = next(iter(tiles.values()))[0]
    (height, width), font = first.shape[:2], _font(10)
    margin = int(max(font.getlength(name) for name in tiles)) + 2 * GAP
    columns = max(map(len, [*tiles.values(), *under.values()]))
    size = (margin + columns * (width + GAP), GAP + len(tiles) * (height + GAP) + len(under) * LINE)
    sheet = Image.new("L" if first.ndim == 2 else "RGB", size, "white")
    draw, top = ImageDraw.Draw(sheet), GAP
    for name, line in tiles.items():
        draw.text((GAP, top + height // 2), name, fill="black", font=font, anchor="lm")
        for column, tile in enumerate(line):
            left = margin + column * (width + GAP)
            sheet.paste(Image.fromarray(tile), (left, top))
            draw.rectangle((left - 1, top - 1, left + width, top + height), outline="#bbbbbb")
        for column, text in enumerate(under.get(name, ())):
            middle = margin + column * (width + GAP) + width // 2
            draw.text((middle, top + height + 2), text, fill="#444444", font=_font(9), anchor="mt")
        top += height + GAP + LINE * (name in under)
    return sheet


def _font(size: int) -> Any:
    """The typeface that comes with matplotlib: the same on every machine."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _tile(image: np.ndarray, side: int) -> np.ndarray:
    """(C, H, W) in [0, 1] -> (h, w) or (h, w, 3) bytes: every pixel repeated, or every k-th taken, to fit `side`."""
    seen = np.where(np.isfinite(image).all(), np.clip(np.nan_to_num(image), 0, 1), 1.0)
    pixels = np.round(seen * 255).astype(np.uint8).transpose(1, 2, 0)
    largest = max(pixels.shape[:2])
    if largest > side:
        step = -(-largest // side)
        pixels = pixels[::step, ::step]
    else:
        pixels = pixels.repeat(side // largest, axis=0).repeat(side // largest, axis=1)
    return np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _psnr_text(true: np.ndarray, got: np.ndarray) -> str:
    """PSNR in dB with one digit, capped at 100; `-` where there is no image."""
    if not np.isfinite(got).all():
        return "-"
    error = float(np.mean((np.clip(got, 0, 1) - true) ** 2))
    return f"{min(-10 * np.log10(error), 100.0) if error > 0 else 100.0:.1f}"


def curves(target: Path | IO[str], frame: pd.DataFrame) -> None:
    """Write an SVG: PSNR against gradient evaluations, one line per variant, its 95 % band over trials.

    frame: lines of `curve.csv`. A trial that ended keeps its last value, so each point is a mean over all trials that
    left snapshots; the legend counts them. Of several device kinds that with most is drawn, CUDA on a tie.
    """

    def draw(axes: Any) -> None:
        for index, (variant, lines) in enumerate(frame.groupby("variant")):
            x, values = _along(_one_kind(lines))
            bands = np.array([of_mean(column) for column in values.T])
            colour = COLOURS[index % len(COLOURS)]
            dash = DASHES[index // len(COLOURS) % len(DASHES)]
            axes.fill_between(x, bands[:, 0], bands[:, 1], color=colour, alpha=0.15, linewidth=0)
            label = f"{variant} (n = {len(values)})"
            axes.plot(x, values.mean(axis=0), dash, color=colour, label=label, linewidth=1.5)
        axes.set(xlabel="gradient evaluations", ylabel="PSNR (dB)")
        _logarithmic(axes)
        legend(axes)

    _write(target, svg(draw))


def _one_kind(lines: pd.DataFrame) -> pd.DataFrame:
    trials = lines.groupby("device_kind")["trial"].nunique().to_dict()
    best = max(trials, key=lambda kind: (trials[kind], kind == "cuda", kind))
    return lines[lines["device_kind"] == best]


def _along(lines: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """One variant's snapshots -> evaluations (k,) and PSNR (trials, k): each trial's last value so far.

    The points are all evaluations at which some trial has a snapshot, from where on every trial has one.
    """
    trials = [one.sort_values("evaluations", kind="stable") for _, one in lines.groupby("trial")]
    start = max(one["evaluations"].iloc[0] for one in trials)
    x = np.unique(np.append(lines.loc[lines["evaluations"] >= start, "evaluations"].to_numpy(dtype=float), start))
    last = [np.searchsorted(one["evaluations"].to_numpy(), x, side="right") - 1 for one in trials]
    values = [one["psnr"].to_numpy(dtype=float)[at] for one, at in zip(trials, last, strict=True)]
    return x, np.array(values)


def quality_against_cost(target: Path | IO[str], board: pd.DataFrame) -> None:
    """Write an SVG: the ranking metric with its interval against the median seconds, one point per attack of a board.

    Controls are dotted lines: what is reached without attacking has no price worth showing. A cross carries no rank.
    """

    def draw(axes: Any) -> None:
        for index, row in enumerate(drawable(board)):
            ends = [[row["score"] - row["score_low"]], [row["score_high"] - row["score"]]]
            label = f"{row['paper']} / {row['variant']} ({row['device_kind']})"
            mark = "o" if row["rank"] != "-" else "x"
            colour = COLOURS[index % len(COLOURS)]
            axes.errorbar([row["seconds"]], [row["score"]], yerr=ends, fmt=mark, color=colour, label=label)
        controls = board[of_controls(board) & board["score"].notna()].drop_duplicates("variant")
        for score, same in controls.groupby("score"):
            place: tuple[Any, Any] = (1, score)
            text = ", ".join(same["variant"])
            axes.axhline(score, linestyle=":", linewidth=1, color="#777777", zorder=0)
            axes.annotate(
                text, place, xycoords=("axes fraction", "data"), color="#555555", fontsize=7, ha="right", va="bottom"
            )
        axes.set(xlabel="seconds per trial (median)", ylabel=heading(str(board["metric"].iloc[0])))
        _logarithmic(axes)
        legend(axes)

    _write(target, svg(draw))


def drawable(board: pd.DataFrame) -> list[dict[Any, Any]]:
    """The attacks of a board that have a finite score and a time."""
    attacks = board[~of_controls(board)]
    finite = np.isfinite(attacks[["score", "seconds"]].to_numpy(dtype=float)).all(axis=1)
    return attacks[finite & (attacks["seconds"] > 0).to_numpy()].to_dict("records")


def _logarithmic(axes: Any) -> None:
    """A logarithmic x axis of a decade or more, with plain numbers; 2 and 5 are marked too below two decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    if high < 10 * low:
        low, high = (low * high / 10) ** 0.5, (low * high * 10) ** 0.5
        axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high >= 100 * low else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def scored(axes: Any, rows: pd.DataFrame) -> None:
    """One line of points for each of `row`, in the order of the frame: `score` with its interval (low, high) at `x`."""
    for index, (row, points) in enumerate(rows.groupby("row", sort=False)):
        line(axes, points, COLOURS[index % len(COLOURS)], f"{row} (n = {points['n'].max()})")


def line(axes: Any, points: pd.DataFrame, colour: str, label: str, fmt: str = "o-", **look: Any) -> None:
    """`score` with its interval (low, high) at `x`. look: what else matplotlib's `errorbar` takes."""
    ends = [points["score"] - points["low"], points["high"] - points["score"]]
    axes.errorbar(points["x"], points["score"], yerr=ends, fmt=fmt, color=colour, label=label, capsize=2, **look)


def legend(axes: Any) -> None:
    """At the right of the axes, where it hides nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=8)


def svg(draw: Callable[[Any], None]) -> str:
    """A figure on which `draw(axes)` has drawn, as SVG text."""
    return side_by_side(lambda panels: draw(panels[0]), 1)


def side_by_side(draw: Callable[[Sequence[Any]], None], count: int) -> str:
    """A figure of so many axes in a row, of one y axis, on which `draw(panels)` has drawn, as SVG text."""
    from matplotlib import style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    left, bottom, width, height = AXES
    each = (width - BETWEEN * (count - 1)) / count
    with style.context(["default", STYLE, {"text.parse_math": False}]):  # a name is no formula
        figure = Figure(figsize=(7.2, 3.2))
        FigureCanvasSVG(figure)
        panels: list[Any] = []
        for place in range(count):  # a layout engine would draw every figure twice
            here = (left + place * (each + BETWEEN), bottom, each, height)
            panels.append(figure.add_axes(here, sharey=panels[0] if panels else None))
            panels[-1].tick_params(left=not place, labelleft=not place)
        draw(panels)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _write(target: Path | IO[str], text: str) -> None:
    if isinstance(target, (str, Path)):
        write_text(Path(target), text)
    else:
        target.write(text)
