"""One HTML page per scale, complete in itself: verdicts, boards, curves, pictures, machines."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import pandas as pd

from leakboard import config
from leakboard.board import defence_table, defended, factors, figures, replication, restarts, tables, verdict
from leakboard.board.readable import shown, threat_sentence
from leakboard.board.replication import interval_text, read_verdicts
from leakboard.config import Benchmark, Scale
from leakboard.config.texts import bytes_of, there
from leakboard.metrics import heading
from leakboard.record import cells, curve_lines, speed, trial_lines
from leakboard.record.cells import RecordError
from leakboard.record.results import Results
from leakboard.record.saving import write_text

TEMPLATE = Path(__file__).with_name("report.html.j2")
PNG = b"\x89PNG\r\n\x1a\n"
PICTURES = {
    "grid.png": "the truth above, reconstructions below, PSNR in dB under each.",
    "rounds.png": "what its first row had in some of the rounds, a line for each trial.",
}
MACHINE = ["device_kind", "device", "torch", "cuda", "threads", "commit", "dirty"]
CURVE_CAPTION = "Quality over cost: mean PSNR after so many gradient evaluations, with its 95 % interval over trials."
GROWTH_CAPTION = (
    "How the cost of one step of cosine matching grows: seconds above, peak memory below, on logarithmic axes."
)
STATED: dict[str, cells.Parse] = {
    **{name: cells.text for name in verdict.COLUMNS},
    **{name: cells.number(endless=True) for name in ("ours", "low", "high")},
    "gates": cells.flag,
    "n": cells.whole(),
    "verdict": cells.one_of(replication.VERDICTS),
}
DEFENDED_CAPTION = "The same rows where this is all that protects the victim, with 95 % intervals over trials."
UTILITY_CAPTION = (
    "What leaks against what the network is good for that is trained under the defence: a point a strength, with 95 % "
    "intervals over trials; a ring is no defence. Low and to the right is a defence worth having."
)
RESTARTS_CAPTION = "Rows that differ by their number of starts alone, with 95 % intervals over trials."
FACTORS_CAPTION = (
    "The same rows on boards that differ by one number of the federation alone: a panel for each, all others as here, "
    "with as many steps of a search everywhere. Bars are 95 % intervals over trials, of one trial none; what runs off "
    "the picture is longer. Rows of one number stand side by side; dotted lines are controls."
)
COST_CAPTION = (
    "Score of each attack against its median seconds per trial; a cross carries no rank, dotted lines are controls."
)


def write_all(results: Results) -> Path:
    """Write the verdicts, the leaderboard and the page; returns where the page is."""
    judged = verdict.write_verdicts(results)
    board = tables.write_leaderboard(results)
    return report(results, judged, board)


def stated_verdicts(results: Results) -> pd.DataFrame:
    """The verdicts as `published.csv` states them; RecordError where it is damaged."""
    path = results.file("published.csv")
    if there(path):
        columns, lines = cells.table(path, verdict.COLUMNS, verdict.COLUMNS)
        cells.typed(path, columns, lines, STATED)
    return read_verdicts(results)


def report(results: Results, judged: pd.DataFrame | None = None, board: pd.DataFrame | None = None) -> Path:
    """Write the page and return its path; verdicts and boards are derived where they are not given."""
    from jinja2 import Environment, StrictUndefined

    judged = verdict.verdicts(results) if judged is None else judged
    board = tables.leaderboard(results) if board is None else board
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        scale=results.scale,
        counted=_counted(judged),
        verdicts=[_verdict(row) for row in judged.to_dict("records")],
        sections=_sections(results, board),
        speed=_speed(results.scale),
        machines=_machines(results),
    )
    write_text(results.page, page)
    return results.page


def _counted(judged: pd.DataFrame) -> str:
    counts, others = replication.counted(judged)
    kinds = [f"{kind}: {', '.join(f'{n} {word}' for word, n in row.items() if n)}" for kind, row in counts.iterrows()]
    return ". ".join(kinds) + ". " + others


def _verdict(row: dict[Any, Any]) -> dict[str, str]:
    shown = {name: str(row[name]) for name in ("paper", "run", "where", "provenance", "metric", "published", "cause")}
    return {
        **shown,
        "ours": interval_text(row),
        "tolerance": f"{row['tolerance']:.3g}",
        "verdict": row["verdict"],
        "gates": "yes" if row["gates"] else "no",
    }


def _sections(results: Results, board: pd.DataFrame) -> list[dict[str, Any]]:
    """What the page says of each benchmark that has rows."""
    boards = board.groupby("benchmark", sort=False)
    return [_section(results, results.benchmark(str(name)), rows) for name, rows in boards]


def _section(results: Results, benchmark: Benchmark, board: pd.DataFrame) -> dict[str, Any]:
    table, crossed = shown(board, benchmark), defence_table.attack_by_defence(results, benchmark)
    papers = config.papers_on(benchmark.name)
    return {
        "name": benchmark.name,
        "question": benchmark.question.strip(),
        "threat": threat_sentence(benchmark),
        "price": defence_table.price_sentence(results, benchmark),
        "metric": heading(benchmark.metrics[0]),
        "trials": benchmark.trials,
        "columns": list(table.columns),
        "lines": table.to_numpy().tolist(),
        "defended": {"columns": list(crossed.columns), "lines": crossed.to_numpy().tolist()},
        "figures": _figures(results, benchmark, board),
        "grids": [grid for paper in papers for grid in _grid(results, benchmark.name, paper)],
    }


def _figures(results: Results, benchmark: Benchmark, board: pd.DataFrame) -> list[dict[str, Any]]:
    drawn = []
    snapshots = _snapshots(results, benchmark)
    if len(snapshots):
        buffer = io.StringIO()
        figures.curves(buffer, snapshots)
        drawn.append({"svg": _inline(buffer.getvalue(), f"{benchmark.name}-curve"), "caption": CURVE_CAPTION})
    if figures.drawable(board):
        buffer = io.StringIO()
        figures.quality_against_cost(buffer, board)
        drawn.append({"svg": _inline(buffer.getvalue(), f"{benchmark.name}-cost"), "caption": COST_CAPTION})
    return drawn + _defended(results, benchmark) + _restarts(results, benchmark) + _factors(results, benchmark)


def _defended(results: Results, benchmark: Benchmark) -> list[dict[str, Any]]:
    """Two figures for every defence under which other boards ask the same, and what they say for readers."""
    rows, found = defended.under_defence(results, benchmark), []
    for name, own in rows.groupby("defence").filter(defended.drawable).groupby("defence"):
        place, metric = f"{benchmark.name}-{str(name).replace(' ', '-')}", benchmark.metrics[0]
        found.append({"svg": _inline(defended.drawing(own, metric), place), "caption": DEFENDED_CAPTION})
        if defended.drawable_utility(own):
            svg = _inline(defended.utility_drawing(own, metric), f"{place}-utility")
            found.append({"svg": svg, "caption": UTILITY_CAPTION})
    return found


def _restarts(results: Results, benchmark: Benchmark) -> list[dict[str, Any]]:
    rows = restarts.by_restarts(results, benchmark)
    if rows.empty:
        return []
    svg = _inline(restarts.drawing(rows, benchmark.metrics[0]), f"{benchmark.name}-restarts")
    return [{"svg": svg, "caption": RESTARTS_CAPTION}]


def _factors(results: Results, benchmark: Benchmark) -> list[dict[str, Any]]:
    rows = factors.by_factor(results, benchmark)
    drawn = {metric: factors.drawing(rows, metric) for metric in rows["metric"].unique()}
    return [
        {"svg": _inline(svg, f"{benchmark.name}-factors-{metric}"), "caption": FACTORS_CAPTION}
        for metric, svg in drawn.items()
    ]


def _snapshots(results: Results, benchmark: Benchmark) -> pd.DataFrame:
    """The lines of every paper's `curve.csv` for variants that it has today; `variant` names the paper too."""
    found = []
    for paper in config.papers_on(benchmark.name):
        lines = curve_lines.read(results.folder(paper, benchmark.name) / "curve.csv")
        kept = lines[lines["variant"].isin(list(config.params(paper).variants_on(benchmark)))].dropna(subset="psnr")
        if len(kept):
            found.append(kept.assign(variant=paper + " / " + kept["variant"]))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _inline(svg: str, name: str) -> Any:
    """SVG text as a part of a page: without its prologue, and with ids that no other figure of the page has."""
    from markupsafe import Markup

    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(url\(#|href="#)', rf"\1{name}-", body)
    return Markup(body.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1))


def _grid(results: Results, run: str, paper: str) -> list[dict[str, str]]:
    """The paper's pictures as data URIs, those that it has; RecordError where one is none."""
    title, found = config.params(paper).title, []
    for name, says in PICTURES.items():
        path = results.folder(paper, run) / name
        if there(path):
            if not bytes_of(path, RecordError).startswith(PNG):
                raise RecordError(f"{path} is no PNG picture, expected one")
            found.append({"source": _uri(path), "caption": f"{title}: {says}"})
    return found


def _uri(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(bytes_of(picture, RecordError)).decode()


def _speed(scale: Scale) -> dict[str, Any]:
    """What `make speed` chose, and its picture of how cost grows; nothing where it never ran."""
    chosen, picture = speed.shown(scale), speed.path(scale).with_name("growth.png")
    lines = chosen.to_numpy().tolist()
    return {
        "columns": list(chosen.columns),
        "lines": lines,
        "growth": _uri(picture) if there(picture) else "",
        "caption": GROWTH_CAPTION,
    }


def _machines(results: Results) -> dict[str, Any]:
    """Which machines the current trial lines come from, and how many trials each ran."""
    places = [(paper, run) for run in config.board_names() for paper in config.papers_on(run)]
    lines = [results.current_lines(*place) for place in places]
    columns = [*(name.replace("_", " ") for name in MACHINE), "trials"]
    every = pd.concat([one[MACHINE] for one in lines if len(one)] or [trial_lines.frame()[MACHINE]])
    counts = every.assign(threads=every["threads"].map("{:.0f}".format)).groupby(MACHINE, dropna=False).size()
    return {"columns": columns, "lines": [[*map(str, named), str(count)] for named, count in counts.items()]}
