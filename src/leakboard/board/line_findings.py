"""Whether trial lines are plausible on their own, and whether they are all there. No torch, no data."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leakboard.board.findings import RELATIVE, Difference, Finding, limited, restore, some
from leakboard.config import Benchmark, Scale, paper_names, published
from leakboard.metrics import RATES
from leakboard.record import trial_lines

BoardRow = tuple[str, str, str]  # paper, benchmark, variant
LOOKED_AT = (
    *trial_lines.PLACE, "benchmark", "scale", "benchmark_hash", "victim_sha", "mse", "psnr", "mse_each", "psnr_each",
    *RATES,
)  # fmt: skip


def gating_rows(scale: Scale) -> set[BoardRow]:
    """The rows that a gating number or claim of this scale speaks of."""
    found = set()
    for paper in paper_names():
        said = published(paper)
        if said is None:
            continue
        found |= {(paper, one.run, one.variant) for one in said.numbers if one.gates and scale in one.scale}
        sides = [side for one in said.claims if one.gates and scale in one.scale for side in (one.left, one.right)]
        found |= {(side.paper or paper, side.run, side.variant) for side in sides if side is not None}
    return found


def line_findings(
    file: Path, paper: str, benchmark: Benchmark, lines: pd.DataFrame, gating: Collection[BoardRow]
) -> Iterator[Finding]:
    """All that can be said of the lines of one paper on one benchmark by themselves."""
    keys = trial_lines.present_keys(paper, benchmark)
    present = trial_lines.current(lines, keys)
    again = f"leakboard reproduce {paper} {benchmark.name} --scale {benchmark.scale}"
    yield from limited(file, line_differences(lines, benchmark.name, benchmark.scale), restore(file))
    beyond = lines[(lines["trial"] < 0) | (lines["trial"] >= benchmark.trials)]
    if len(beyond):
        mend = f"{restore(file)}; where `trials` was lowered, `{again} --fresh`"
        found, expected = some(map(name, _records(beyond))), f"trials 0 to {benchmark.trials - 1}"
        yield Finding(str(file), f"{len(beyond)} lines are of no board", found, expected, mend=mend)
    if not present.all():
        found = f"{int((~present).sum())} stale"
        yield Finding(str(file), "lines are current", found, "0", "warning", f"`{again}`")
    if dirty := int(lines["dirty"].sum()):
        mend = f"commit, then `{again} --fresh`"
        yield Finding(str(file), "lines come from a commit", f"{dirty} from a changed tree", "0", "warning", mend)
    for variant, there in _trials_there(lines[present], keys).items():
        gates = (paper, benchmark.name, variant) in gating
        yield from _incomplete(file, variant, there, benchmark.trials, gates, f"`{again}`")


def of_other_victims(
    file: Path, paper: str, benchmark: Benchmark, lines: pd.DataFrame, record: Path
) -> Iterator[Finding]:
    """Trials on another trained victim than the one of the record; what a malicious server sends out is no victim."""
    if benchmark.threat.conduct != "honest" or not record.exists():
        return
    victim = json.loads(record.read_text()).get("sha256")
    every = benchmark.training is None or not benchmark.training.anew
    found = sorted(set(lines["model_sha"][every | (lines["trial"] == 0)]) - {"", victim})
    if victim and found:
        again = f"`leakboard reproduce {paper} {benchmark.name} --scale {benchmark.scale} --fresh`"
        mend = f"{restore(record)}; where it was trained anew, {again}"
        yield Finding(
            str(file), "the victims are those of the record", some(found), f"{victim}, as in {record}", mend=mend
        )


def _trials_there(current: pd.DataFrame, variants: Iterable[str]) -> dict[str, set[int]]:
    """{row: its trials on the kind of device that has most of them}"""
    kinds: dict[str, dict[str, set[int]]] = {variant: {} for variant in variants}
    for variant, kind, trial in zip(*(current[column] for column in ("variant", "device_kind", "trial")), strict=True):
        kinds[variant].setdefault(kind, set()).add(trial)
    return {variant: max(found.values(), key=len, default=set()) for variant, found in kinds.items()}


def _incomplete(file: Path, variant: str, there: set[int], trials: int, gates: bool, mend: str) -> Iterator[Finding]:
    """A row with fewer trials than the benchmark asks for.

    A board shows it as `n of m trials`, so it is a warning; but in a row that gates, trials that were left out can turn
    a miss into a success, so there it is an error.
    """
    lacking = [trial for trial in range(trials) if trial not in there]
    if not lacking:
        return
    found, expected = f"{trials - len(lacking)} of {trials}, without {some(lacking)}", "all of them"
    if gates:
        yield Finding(str(file), f"trials of {variant}, which gates", found, expected, mend=mend)
    else:
        yield Finding(str(file), f"trials of {variant}", found, expected, "warning", mend)


def line_differences(lines: pd.DataFrame, run: str, scale: Scale) -> Iterator[Difference]:
    """What makes lines implausible on their own: doubles, foreign lines, different victims, averages that are none."""
    records = _records(lines)
    for place, count in Counter(tuple(line[column] for column in trial_lines.PLACE) for line in records).items():
        if count > 1:
            yield f"{name(dict(zip(trial_lines.PLACE, place, strict=True)))} stands once", f"{count} times", "once"
    for column, expected in (("benchmark", run), ("scale", scale)):
        for value in sorted({line[column] for line in records} - {expected}):
            yield f"{column} of a line", value, expected
    victims: dict[tuple[int, str], set[str]] = {}
    for line in records:
        victims.setdefault((line["trial"], line["benchmark_hash"]), set()).update({line["victim_sha"]} - {""})
    for (trial, _), shas in victims.items():
        if len(shas) > 1:
            yield f"victims of trial {trial} are the same", ", ".join(sorted(shas)), "one victim_sha"
    for line in records:
        for what, found, expected in _average_differences(line):
            yield f"{what} of {name(line)}", found, expected


def _records(lines: pd.DataFrame) -> list[dict[str, Any]]:
    """The lines as dictionaries of what is looked at."""
    return [
        dict(zip(LOOKED_AT, values, strict=True))
        for values in zip(*(lines[c].tolist() for c in LOOKED_AT), strict=True)
    ]


def name(line: Any) -> str:
    """A line, for readers."""
    return f"{line['variant']} trial {line['trial']} ({line['device_kind']}, {line['execution']})"


def _average_differences(line: dict[Any, Any]) -> Iterator[Difference]:
    """A line's means and shares against its numbers per image, its PSNR against its MSE."""
    for metric in RATES:
        if not math.isnan(line[metric]) and not 0 <= line[metric] <= 1:
            yield metric, line[metric], "a share between 0 and 1"
    each, decibel = trial_lines.numbers(line["mse_each"]), trial_lines.numbers(line["psnr_each"])
    if not len(each):
        return
    if not math.isclose(line["mse"], each.mean(), rel_tol=RELATIVE, abs_tol=1e-12):
        yield "mse", line["mse"], f"{each.mean():.9g}, the mean of mse_each"
    with np.errstate(divide="ignore", invalid="ignore"):
        derived = np.minimum(-10 * np.log10(each), 100.0)
    if len(decibel) != len(each) or np.abs(decibel - derived).max() > 1e-3:
        yield "psnr_each", line["psnr_each"], f"{trial_lines.joined(derived)}, from mse_each"
    if not math.isclose(line["psnr"], derived.mean(), abs_tol=1e-3):
        yield "psnr", line["psnr"], f"{derived.mean():.9g}, the mean of psnr_each"
    for metric, low, high in _shares(each, derived):
        if not low - 1e-6 <= line[metric] <= high + 1e-6:
            yield metric, line[metric], f"{low:.6g} to {high:.6g}, the share of images"


def _shares(each: np.ndarray, decibel: np.ndarray) -> Iterator[tuple[str, float, float]]:
    """(metric, least, most) that the share may be; they differ only where an image stands on a threshold."""
    for limit in (20, 30):
        yield f"above{limit}", (decibel > limit + 1e-3).mean(), (decibel > limit - 1e-3).mean()
    for text in ("1e-2", "1e-3", "1e-4"):
        yield f"success_{text}", (each < float(text) * (1 - 1e-5)).mean(), (each < float(text) * (1 + 1e-5)).mean()
    yield "exact", 0.0, (each < 1.001e-6).mean()  # an error below 1e-3 everywhere is an MSE below 1e-6
