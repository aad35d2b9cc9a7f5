"""Boards and benchmarks as readers see them: headings, few digits, the threat model in one sentence. No torch."""

from __future__ import annotations

import math
import re

import pandas as pd

from leakboard.config import Benchmark
from leakboard.errors import one_line
from leakboard.metrics import COSTS, METRICS, QUALITY, heading
from leakboard.threat import KINDS, KNOWLEDGE

# What a column may hold and not be worth its place; of the others only what is absent.
DULL: dict[str, set[str]] = {"rank": set(), "failed": {"0"}, "execution": {"loop", ""}}
TAG, LINK = re.compile("<([A-Za-z/!?])"), re.compile(r"\]([\[(])")
NETWORKS = {"fresh": "an untrained", "trained": "a trained", "pretrained": "a pretrained"}


def threat_sentence(benchmark: Benchmark) -> str:
    """The threat model in one plain sentence."""
    threat, size = benchmark.threat, benchmark.batch
    who = f"{'An honest-but-curious' if threat.conduct == 'honest' else 'A malicious'} {threat.attacker}"
    seen = f"{KINDS[threat.sees].phrase} ({size} image{'s' if size > 1 else ''})"
    access = f" with {threat.access}-box access" if threat.sees == "released" else ""
    known = [KNOWLEDGE[item] for item in sorted(threat.knows)]
    listed = " and ".join([", ".join(known[:-1]), known[-1]] if len(known) > 1 else known or ["nothing else"])
    network, data = benchmark.network, benchmark.data
    under = f" under {defence_text(benchmark)}" if benchmark.defence else ""
    return (
        f"{who} sees {seen}{access} of {NETWORKS[network.weights]} {network} on {data.title}{under} and knows {listed}."
    )


def defence_text(benchmark: Benchmark) -> str:
    """What protects the victim, and how strongly: `gaussian_noise (deviation 0.1)`; `none` where nothing does."""
    acting = []
    for name, settings in sorted(benchmark.defence.items()):
        said = [f"{key} {value:g}" if isinstance(value, float) else value.name for key, value in settings.items()]
        acting.append(f"{name} ({', '.join(said)})" if said else name)
    return " and ".join(acting) or "none"


def shown(board: pd.DataFrame, benchmark: Benchmark) -> pd.DataFrame:
    """The rows of one board as text for readers: the benchmark's metrics with intervals, costs, notes."""
    metrics = [
        metric
        for metric in dict.fromkeys((*benchmark.metrics, "label_accuracy"))
        if metric in QUALITY and metric in board
    ]
    columns: dict[str, list[str]] = {
        "rank": board["rank"].tolist(),
        "attack": (board["paper"] + " / " + board["variant"]).tolist(),
    }
    for metric in metrics:
        columns[heading(metric)] = [
            cell(metric, *ends)
            for ends in zip(*(board[f"{metric}{end}"] for end in ("", "_low", "_high")), strict=True)
        ]
    columns["labels"] = board["labels"].tolist()
    columns["n"] = [str(n) for n in board["n"]]
    columns["failed"] = [str(count) for count in board["failures"]]
    for metric, name in (("seconds", "seconds"), ("evaluations", "evaluations"), ("seconds_to_20", "seconds to 20 dB")):
        columns[name] = [number(metric, value) for value in board[metric]]
    columns["ms per step"] = ["-" if math.isnan(value) else f"{1e3 * value:.3g}" for value in board["seconds_per_step"]]
    columns |= {"execution": board["execution"].tolist(), "device": board["device_kind"].tolist()}
    columns["note"] = board["note"].tolist()
    dull = [name for name, cells in columns.items() if set(cells) <= DULL.get(name, {"-", ""})]
    return pd.DataFrame({name: cells for name, cells in columns.items() if name not in dull})


def cell(metric: str, mean: float, low: float, high: float) -> str:
    """`mean [low, high]`, or `-` where there is none."""
    return "-" if math.isnan(mean) else f"{number(metric, mean)} [{number(metric, low)}, {number(metric, high)}]"


def number(metric: str, value: float) -> str:
    """One value of a metric in few digits, none of them `-0`; `-` for none, `inf` for never reached."""
    if math.isnan(value):
        return "-"
    digits = METRICS[metric].digits
    if metric in COSTS and 0 < value < 1e-3:
        return "< 0.001"
    whole = metric not in QUALITY and math.isfinite(value) and abs(value) >= 100
    return f"{value:.0f}" if whole else f"{value:z{digits}}"


def markdown(table: pd.DataFrame) -> str:
    """A table of text as a compact markdown table."""
    cells = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(plain(str(cell)) for cell in line) + " |" for line in cells)


def plain(text: str) -> str:
    """Text in a cell of a markdown table: one line, of which nothing ends the cell, is a tag or is a link."""
    return LINK.sub(r"]\\\1", TAG.sub(r"&lt;\1", one_line(text).replace("|", "\\|")))
