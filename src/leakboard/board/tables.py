"""The boards: trial lines -> ranked rows -> `leaderboard.csv` and `leaderboard.md`. No torch.

Ranked within one benchmark only, by its first metric. Controls, skipped variants and stale lines are shown, not ranked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from leakboard import config
from leakboard.board import defence_table
from leakboard.board.estimates import Estimate, Sample, difference, estimate, sample_of
from leakboard.board.norms import by_gradient_norm
from leakboard.board.readable import markdown, plain, shown, threat_sentence
from leakboard.config import Benchmark, controls
from leakboard.metrics import COSTS, QUALITY, REACHED, heading, lower_is_better
from leakboard.record import speed, trial_lines
from leakboard.record.aggregate import metric_values, one_per_trial
from leakboard.record.results import Results

COLUMNS = (
    "benchmark", "paper", "variant", "device_kind", "rank", "metric", "score", "score_low", "score_high", "n",
    "failures", "labels", *(f"{metric}{end}" for metric in QUALITY for end in ("", "_low", "_high")), *COSTS,
    "peak_bytes", "execution", "seconds_per_step", "device", "attacker", "conduct", "sees", "knows", "note",
)  # fmt: skip


def leaderboard(results: Results) -> pd.DataFrame:
    """Every board of one scale, `COLUMNS`: one row per (benchmark, paper, variant, device kind), best first per board.

    A metric that no row has is no column.
    """
    filled = [board for name in config.board_names() if len(board := board_around(results, name))]
    if not filled:
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.concat(filled, ignore_index=True)
    absent = [metric for metric in QUALITY if table[metric].isna().all()]
    return table.drop(columns=[f"{metric}{end}" for metric in absent for end in ("", "_low", "_high")])


def board_around(results: Results, run: str, extra: pd.DataFrame | None = None) -> pd.DataFrame:
    """The board of one benchmark; with `extra` a further attack stands in it at its rank.

    extra: that attack's trial lines (`trial_lines.COLUMNS`) or its rows, as `rows` makes them. They take the place of
    rows of the same name.
    """
    question = results.benchmark(run)
    found = [row for paper in config.papers_on(run) for row in _paper_rows(results, paper, question)]
    board = pd.DataFrame(found, columns=[*COLUMNS, "sample"])
    if extra is not None and len(extra):
        further = rows(str(extra["attack"].iloc[0]), question, extra) if "trial" in extra else extra
        joined = pd.concat([further, board], ignore_index=True) if len(board) else further
        board = joined.drop_duplicates(["paper", "variant", "device_kind"], ignore_index=True)
    return ranked(board)


def _paper_rows(results: Results, paper: str, question: Benchmark) -> list[dict[str, Any]]:
    lines = results.lines(paper, question.name)
    lines = lines[lines["trial"] < question.trials]
    return list(_rows(paper, question, lines, trial_lines.current(lines, trial_lines.present_keys(paper, question))))


def rows(paper: str, benchmark: Benchmark, lines: pd.DataFrame) -> pd.DataFrame:
    """Trial lines of one attack, all taken as current -> its rows of the board, not ranked yet."""
    everything = pd.Series(True, index=lines.index, dtype=bool)
    return pd.DataFrame(list(_rows(paper, benchmark, lines, everything)), columns=[*COLUMNS, "sample"])


def _rows(paper: str, benchmark: Benchmark, lines: pd.DataFrame, current: pd.Series) -> Iterator[dict[str, Any]]:
    counted = one_per_trial(lines[current])
    for (variant, kind), every in lines.groupby(["variant", "device_kind"]):
        chosen = counted[(counted["variant"] == variant) & (counted["device_kind"] == kind)]
        found = {metric: _estimate(chosen, metric, benchmark.batch) for metric in (*QUALITY, *COSTS)}
        known = benchmark.threat.knows
        yield {
            "benchmark": benchmark.name,
            "paper": paper,
            "variant": variant,
            "device_kind": kind,
            "rank": "-",
            "metric": benchmark.metrics[0],
            **_named("score", found[benchmark.metrics[0]]),
            "n": len(chosen),
            "failures": int(chosen["status"].isin(trial_lines.FAILURES).sum()),
            "labels": _labels(chosen, known),
            **{name: value for metric in QUALITY for name, value in _named(metric, found[metric]).items()},
            **{metric: _six(found[metric].ours) for metric in COSTS},
            "peak_bytes": _six(chosen["peak_bytes"].max()),
            "execution": _joined(chosen["execution"]),
            "seconds_per_step": speed.seconds_per_step(benchmark.scale, benchmark.name, paper, str(kind)),
            "device": _joined(chosen["device"]),
            **benchmark.threat.model_dump(include={"attacker", "conduct", "sees"}),
            "knows": " ".join(sorted(known)),
            "note": _note(chosen, every[current[every.index]], every, benchmark.trials),
            "sample": sample_of(chosen, benchmark.metrics[0], benchmark.batch),
        }


def _estimate(lines: pd.DataFrame, metric: str, batch: int) -> Estimate:
    """Mean (cost: median) over one row's trials with its interval; of seconds over the trials that have them."""
    if metric not in lines:
        return Estimate()
    values = metric_values(lines, metric)
    if metric in COSTS and metric not in REACHED:
        values = values[~np.isnan(values)]
    return estimate(values, metric, batch)


def _named(name: str, got: Estimate) -> dict[str, float]:
    return {name: _six(got.ours), f"{name}_low": _six(got.low), f"{name}_high": _six(got.high)}


def _six(value: float) -> float:
    """Six significant digits, as the other files hold them."""
    return float(f"{value:.6g}")


def _joined(column: pd.Series) -> str:
    return " + ".join(sorted(set(column) - {""}))


def _labels(lines: pd.DataFrame, known: Iterable[str]) -> str:
    """How the attack comes to the labels: given by the threat model, inferred by itself, or `-`: it reports none."""
    if "labels" in known:
        return "given"
    return "inferred" if lines["label_accuracy"].notna().any() else "-"


def _note(chosen: pd.DataFrame, current: pd.DataFrame, every: pd.DataFrame, trials: int) -> str:
    """What a reader must know of a row: too few trials, why some failed or were skipped, lines left out as stale."""
    parts = [f"{len(chosen)} of {trials} trials"] if 0 < len(chosen) < trials else []
    failed = Counter(chosen.loc[chosen["status"].isin(trial_lines.FAILURES), "status"])
    parts += [f"{count} {status.replace('_', ' ')}" for status, count in sorted(failed.items())]
    skipped = current.loc[current["status"] == "skipped", "reason"]
    parts += [f"skipped: {reason or 'no reason given'}" for reason in sorted(set(skipped))]
    stale = len(every) - len(current)
    parts += [f"{stale} stale line{'s' if stale > 1 else ''}"] if stale else []
    return "; ".join(parts)


def ranked(board: pd.DataFrame) -> pd.DataFrame:
    """The rows of one benchmark, best score first, with their ranks: one more than rows are better, trial by trial.

    Better is what the 95 % interval of the paired difference says; rows that nothing beats share the first rank. An
    attack is ranked once: on the device kind with most trials, CUDA on a tie. Rows with other trials than that with
    most of them have no rank. Where the metric is a cost, only rows of the kind that most rows were measured on are
    ranked.
    """
    if board.empty:
        return board.drop(columns="sample", errors="ignore")
    metric = str(board["metric"].iloc[0])
    ascending = lower_is_better(metric)
    standing = _contenders(board, metric)
    place = {
        index: str(1 + sum(_beats(one, other, ascending) for one in standing)) for index, other in standing.items()
    }
    rank = pd.Series(place, dtype=object).reindex(board.index).fillna("-")
    order = board["score"] if ascending else -board["score"]
    keyed = board.assign(rank=rank, order=order, sharper=-board["psnr"])
    keyed = keyed.sort_values(["order", "sharper", "paper", "variant", "device_kind"])
    return keyed.drop(columns=["order", "sharper", "sample"]).reset_index(drop=True)


def of_controls(board: pd.DataFrame) -> pd.Series:
    """Which rows do not attack."""
    known = controls()
    rows = zip(board["paper"], board["variant"], strict=True)
    return pd.Series([row in known for row in rows], index=board.index, dtype=bool)


def _beats(one: Sample, other: Sample, ascending: bool) -> bool:
    if one is other:
        return False
    apart = difference(one, other)
    return apart.below(0) if ascending else apart.beyond(0)


def _contenders(board: pd.DataFrame, metric: str) -> pd.Series:
    """{row: its trials}, of rows that can have a rank; one in which every trial failed stands for no attack."""
    standing = board[~of_controls(board) & board["score"].notna() & (board["n"] > board["failures"])]
    first = standing.assign(other=standing["device_kind"] != "cuda")
    if metric in COSTS:
        size = first.groupby("device_kind")["device_kind"].transform("size")
        kinds = first.assign(size=size).sort_values(["size", "other", "device_kind"], ascending=[False, True, True])
        chosen = kinds[kinds["device_kind"] == kinds["device_kind"].iloc[0]] if len(kinds) else kinds
    else:
        ordered = first.sort_values(["n", "other", "device_kind"], ascending=[False, True, True])
        chosen = ordered.drop_duplicates(["paper", "variant"])
    most = max(chosen["sample"], key=len, default=None)
    same = [most is not None and set(one.victims) == set(most.victims) for one in chosen["sample"]]
    return chosen.loc[same, "sample"]


def board_text(table: pd.DataFrame) -> str:
    """Rows as the CSV text that is committed."""
    return table.to_csv(index=False, lineterminator="\n")


def write_leaderboard(results: Results) -> pd.DataFrame:
    """Write `leaderboard.csv` and `.md`, and return the boards."""
    table = leaderboard(results)
    trial_lines.write_text(results.file("leaderboard.csv"), board_text(table))
    trial_lines.write_text(results.file("leaderboard.md"), _page(results, table))
    return table


def _page(results: Results, table: pd.DataFrame) -> str:
    parts = [
        f"# Leaderboard, {results.scale} scale",
        "Mean over all trials [95 % interval: exact for single images, Student's t below 30 trials, BCa bootstrap from "
        "30 on]; a failed trial scores what noise scores. Costs are medians of the attack alone; ms per step is one "
        "gradient evaluation of one reconstruction, in the execution that `make speed` chose. A rank holds within its "
        "table only and is one more than the number of rows that are better trial by trial, so rows that these trials "
        "cannot tell apart share one; controls are shown and not ranked.",
    ]
    for name, board in table.groupby("benchmark", sort=False):
        question = results.benchmark(str(name))
        parts += [f"## {name}", plain(question.question), threat_sentence(question)]
        parts += [plain(defence_table.price_sentence(results, question))]
        parts += [f"Ranked by {heading(question.metrics[0])}; n = {question.trials} trials."]
        parts += [markdown(shown(board, question)), by_gradient_norm(results, question.name)]
        parts += _by_defence(results, question)
    return "\n\n".join(filter(None, parts)) + "\n"


def _by_defence(results: Results, question: Benchmark) -> list[str]:
    table = defence_table.attack_by_defence(results, question)
    if table.empty:
        return []
    return [f"Attacks by defences: {heading(question.metrics[0])}.", markdown(table)]
