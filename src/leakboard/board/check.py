"""`leakboard check`: every committed number derived again from what it is said to come from. No data, no torch, no dvc.

trials.csv -> metrics.json, timing.json -> leaderboard.csv, published.csv; the lines of trials.csv against the numbers
per image that they carry; the dvc.lock files against the working tree; and no gating number missed.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml

from leakboard.board import tables, verdict
from leakboard.config import SCALES, ConfigError, Scale, paper_names, params
from leakboard.metrics import RATES
from leakboard.record import locks, trial_lines
from leakboard.record.aggregate import aggregate, timing
from leakboard.record.results import Results

RELATIVE = 1.1e-5  # one unit in the sixth significant digit, the last that the files hold
SHOWN = 5  # differences named per file; the rest are counted


@dataclass(frozen=True)
class Finding:
    """Something that does not hold. severity `error` fails the check, `warning` is only shown."""

    file: str
    what: str
    found: str
    expected: str
    severity: Literal["error", "warning"] = "error"


def check(root: Path) -> list[Finding]:
    """Everything that is wrong in the checkout at `root`, in the order of the pipeline."""
    with contextlib.chdir(root):
        found = [finding for scale in SCALES for finding in _scale_findings(_relative(scale))]
        found += [Finding(*mismatch) for mismatch in locks.mismatches(Path.cwd())]
    return found


def _relative(scale: Scale) -> Results:
    """The checkout's results by paths that findings can show."""
    return Results(scale, Path("results"))


def failed(findings: list[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def rows(findings: list[Finding]) -> list[tuple[str, str, str, str, str]]:
    """(severity, file, what, found, expected) of each, errors first."""
    ordered = sorted(findings, key=lambda finding: finding.severity != "error")
    return [(one.severity, one.file, one.what, one.found, one.expected) for one in ordered]


def _scale_findings(results: Results) -> Iterator[Finding]:
    if not results.papers.is_dir() and not results.file("published.csv").exists():
        return
    for paper in paper_names():
        for place in sorted((results.papers / paper).glob("*/")):
            yield from _guarded(place, functools.partial(_run_findings, results, paper, place.name))
    yield from _guarded(results.file("published.csv"), functools.partial(_verdict_findings, results))
    yield from _guarded(results.file("leaderboard.csv"), functools.partial(_leaderboard_findings, results))


def _guarded(place: Path, findings: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """The findings, or that they could not be had: a damaged file is a finding, not a crash."""
    try:
        return list(findings())
    except (trial_lines.RecordError, ConfigError, OSError, yaml.YAMLError, json.JSONDecodeError) as error:
        return [Finding(place.as_posix(), "is readable", str(error), "a whole file")]


def _run_findings(results: Results, paper: str, run: str) -> Iterator[Finding]:
    """One paper on one benchmark: its lines, and the two files derived from them."""
    place = results.folder(paper, run)
    trials = place / "trials.csv"
    if not trials.exists():
        if any(place.iterdir()):
            yield Finding(trials.as_posix(), "exists", "no file", "the trials behind its neighbours")
        return
    if run not in params(paper).on:
        yield Finding(place.as_posix(), "the paper stands on it", run, ", ".join(params(paper).on), "warning")
        return
    lines = trial_lines.read(trials)
    yield from _limited(trials, _line_faults(lines, run, results.scale))
    present = trial_lines.current(lines, trial_lines.present_keys(paper, results.benchmark(run)))
    if not present.all():
        yield Finding(trials.as_posix(), "lines are current", f"{int((~present).sum())} stale", "0", "warning")
    for name, derive in (("metrics.json", aggregate), ("timing.json", timing)):
        yield from _limited(place / name, _json_faults(place / name, derive(lines[present])))


Fault = tuple[str, Any, Any]


def _limited(file: Path, faults: Iterator[Fault]) -> Iterator[Finding]:
    """At most `SHOWN` findings of one file, then how many more there are."""
    listed = list(faults)
    for what, found, expected in listed[:SHOWN]:
        yield Finding(file.as_posix(), what, str(found), str(expected))
    if len(listed) > SHOWN:
        yield Finding(file.as_posix(), "more differences", str(len(listed) - SHOWN), "0")


def _json_faults(path: Path, expected: dict[str, Any]) -> Iterator[Fault]:
    if not path.exists():
        yield "exists", "no file", "what trials.csv gives"
        return
    found, derived = _flat(json.loads(path.read_text())), _flat(expected)
    for name in sorted(found.keys() | derived.keys()):
        one, other = found.get(name, "nothing"), derived.get(name, "nothing")
        if not _same(one, other):
            yield f"{name} follows from trials.csv", one, other


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested mappings -> {'plain/cpu/mse/mean': 0.1}; an empty mapping stays as a value."""
    if not isinstance(value, dict) or (not value and name):
        return {name: value}
    parts = [_flat(part, f"{name}/{key}" if name else str(key)) for key, part in value.items()]
    return {key: part for flat in parts for key, part in flat.items()}


def _same(one: Any, other: Any) -> bool:
    """Equal, or equal numbers to six significant digits; numbers may come as text."""
    if one == other:
        return True
    try:
        return math.isclose(float(one), float(other), rel_tol=RELATIVE)
    except (TypeError, ValueError):
        return False


def _table_faults(path: Path, expected: str) -> Iterator[Fault]:
    """A committed CSV file against the text that it should be, cell by cell; a row is named by its first two cells."""
    if not path.exists():
        yield "exists", "no file", "what the trials give"
        return
    found, derived = (list(csv.reader(io.StringIO(text))) for text in (path.read_text(), expected))
    if found[:1] != derived[:1] or len(found) != len(derived):
        yield "columns and number of rows", f"{found[:1]}, {len(found) - 1}", f"{derived[:1]}, {len(derived) - 1}"
        return
    for one, other in zip(found[1:], derived[1:], strict=True):
        for column, left, right in zip(derived[0], one, other, strict=False):
            if not _same(left, right):
                yield f"{column} of {' '.join(other[:2])}", left, right
        if len(one) != len(other):
            yield f"cells of {' '.join(other[:2])}", len(one), len(other)


def _verdict_findings(results: Results) -> Iterator[Finding]:
    table, path = verdict.verdicts(results), results.file("published.csv")
    yield from _limited(path, _table_faults(path, verdict.text_of(table)))
    for row in table.itertuples():
        place = f"baselines/{row.paper}/published.yaml"
        what = f"{row.run} {row.metric} ({results.scale})"
        ours = f"{row.ours:.6g} [{row.low:.6g}, {row.high:.6g}], n={row.n}"
        if row.verdict == "missed" and row.gates:
            yield Finding(place, what, ours, f"{row.published} (tolerance {row.tolerance:.6g})")
        if row.verdict == "not run" and row.n:
            yield Finding(place, what, f"absent in some of {row.n} trials", "a value in each", "warning")


def _leaderboard_findings(results: Results) -> Iterator[Finding]:
    path = results.file("leaderboard.csv")
    yield from _limited(path, _table_faults(path, tables.board_text(tables.leaderboard(results))))


def _line_faults(lines: pd.DataFrame, run: str, scale: Scale) -> Iterator[Fault]:
    """What makes lines implausible on their own: doubles, foreign lines, different victims, averages that are none."""
    for index in lines.index[lines.duplicated(list(trial_lines.PLACE))]:
        yield f"{_name(lines.loc[index])} stands once", "twice", "once"
    for column, expected in (("benchmark", run), ("scale", scale)):
        for value in sorted(set(lines[column]) - {expected}):
            yield f"{column} of a line", value, expected
    named = lines[lines["victim_sha"] != ""]
    for (trial, _), victims in named.groupby(["trial", "benchmark_hash"])["victim_sha"]:
        if victims.nunique() > 1:
            yield f"victims of trial {trial} are the same", ", ".join(sorted(set(victims))), "one victim_sha"
    for line in lines.to_dict("records"):
        for what, found, expected in _average_faults(line):
            yield f"{what} of {_name(line)}", found, expected


def _name(line: Any) -> str:
    return f"{line['variant']} trial {line['trial']} ({line['device_kind']}, {line['execution']})"


def _average_faults(line: dict[Any, Any]) -> Iterator[Fault]:
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
