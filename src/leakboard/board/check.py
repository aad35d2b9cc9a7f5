"""`leakboard check`: every committed number derived again from what it is said to come from. No data, no torch, no dvc.

trials.csv -> metrics.json, timing.json -> leaderboard.csv, published.csv; the lines of trials.csv against the numbers
per image that they carry, and whether they are all there; the dvc.lock files against the working tree and against the
stages that there should be; nothing that belongs to nobody; and no gating number missed.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from leakboard.board import strays, tables, verdict
from leakboard.board.findings import Difference, Finding, failed, guarded, limited, restore, rows, same, sentences
from leakboard.board.line_findings import BoardRow, gating_rows, line_findings, of_other_victims
from leakboard.config import SCALES, ConfigError, Scale, paper_names, params
from leakboard.record import locks, trial_lines
from leakboard.record.aggregate import aggregate, timing
from leakboard.record.results import Results

__all__ = ["Finding", "check", "checked", "failed", "rows", "sentences"]


def check(root: Path) -> list[Finding]:
    """Everything that is wrong in the checkout at `root`, in the order of the pipeline."""
    return checked(root)[1]


def checked(root: Path) -> tuple[list[str], list[Finding]]:
    """(a line on the verdicts of each scale, everything that is wrong). Nothing that a file holds raises."""
    counts: list[str] = []
    found: list[Finding] = []
    with contextlib.chdir(root):
        for scale in SCALES:
            count, findings = _scale_findings(_relative(scale))
            counts.append(f"{scale}: {count}")
            found += findings
        found += guarded("results", functools.partial(strays.above_scales, Path("results")))
        found += [Finding(*mismatch[:4], mend=mismatch.mend) for mismatch in locks.mismatches(Path.cwd())]
    return counts, found


def _relative(scale: Scale) -> Results:
    """The checkout's results by paths that findings can show."""
    return Results(scale, Path("results"))


def _scale_findings(results: Results) -> tuple[str, list[Finding]]:
    """(the verdicts counted, the findings) of one scale."""
    if not results.papers.is_dir() and not results.file("published.csv").exists():
        return "no results", []
    found: list[Finding] = []
    gating: set[BoardRow] = set()
    with contextlib.suppress(ConfigError, OSError, ValueError):  # a damaged published.yaml is found with the verdicts
        gating = gating_rows(results.scale)
    for paper in paper_names():
        place = Path("baselines", paper, "params.yaml")
        found += guarded(place, functools.partial(_paper_findings, results, paper, gating))
    found += guarded(results.papers, functools.partial(strays.of_scale, results))
    found += guarded("benchmarks", functools.partial(strays.of_victims, results))
    judged: list[pd.DataFrame] = []
    found += guarded(results.file("published.csv"), functools.partial(_verdict_findings, results, judged))
    found += guarded(results.file("leaderboard.csv"), functools.partial(_leaderboard_findings, results))
    return _counted(judged), found


def _counted(judged: list[pd.DataFrame]) -> str:
    if not judged:
        return "no verdict, since its sources cannot be read"
    counts = ", ".join(f"{n} {name}" for name, n in judged[0]["verdict"].value_counts().items())
    return counts or "no published number"


def _paper_findings(results: Results, paper: str, gating: Collection[BoardRow]) -> Iterator[Finding]:
    for run in params(paper).boards_at(results.scale):
        place = results.folder(paper, run)
        yield from guarded(place, functools.partial(_run_findings, results, paper, run, gating))
    yield from strays.of_paper(results, paper)


def _run_findings(results: Results, paper: str, run: str, gating: Collection[BoardRow]) -> Iterator[Finding]:
    """One paper on one benchmark: its lines, and the two files derived from them."""
    place, benchmark = results.folder(paper, run), results.benchmark(run)
    trials = place / "trials.csv"
    if not trials.exists() and place.is_dir() and any(place.iterdir()):
        expected = "the trials behind its neighbours"
        yield Finding(trials.as_posix(), "exists", "no file", expected, mend=restore(trials))
        return
    lines = trial_lines.read(trials)
    yield from line_findings(trials, paper, benchmark, lines, gating)
    if not trials.exists():
        return
    current = results.current_lines(paper, run)
    record = results.victim(run) / "metrics.json"
    yield from guarded(record, functools.partial(of_other_victims, trials, paper, benchmark, current, record))
    again = f"{restore(place)}; `leakboard reproduce {paper} {run} --scale {results.scale}` writes it again"
    derived_from = (
        (place / "metrics.json", aggregate(current, benchmark.batch)),
        (place / "timing.json", timing(current)),
    )
    for file, derived in derived_from:
        yield from guarded(file, functools.partial(_derived_findings, file, derived, again))


def _derived_findings(file: Path, derived: dict[str, Any], again: str) -> Iterator[Finding]:
    yield from limited(file, _json_differences(file, derived), again)


def _json_differences(path: Path, expected: dict[str, Any]) -> Iterator[Difference]:
    if not path.exists():
        yield "exists", "no file", "what trials.csv gives"
        return
    found, derived = _flat(json.loads(path.read_text())), _flat(expected)
    for name in sorted(found.keys() | derived.keys()):
        one, other = found.get(name, "nothing"), derived.get(name, "nothing")
        if not same(one, other):
            yield f"{name} follows from trials.csv", one, other


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested mappings -> {'plain/cpu/mse/mean': 0.1}; an empty mapping stays as a value."""
    if not isinstance(value, dict) or (not value and name):
        return {name: value}
    parts = [_flat(part, f"{name}/{key}" if name else str(key)) for key, part in value.items()]
    return {key: part for flat in parts for key, part in flat.items()}


def _table_differences(path: Path, expected: str) -> Iterator[Difference]:
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
            if not same(left, right):
                yield f"{column} of {' '.join(other[:2])}", left, right
        if len(one) != len(other):
            yield f"cells of {' '.join(other[:2])}", len(one), len(other)


def _verdict_findings(results: Results, judged: list[pd.DataFrame]) -> Iterator[Finding]:
    """Puts the verdicts that it derives into `judged`."""
    stored, path = verdict.Stored.of(results), results.file("published.csv")
    table = verdict.verdicts(results, stored)
    judged.append(table)
    if stored.unasked:
        found = f"no commits of trials of {', '.join(sorted(stored.unasked))}: what the file states stands"
        mend = "`git fetch --unshallow`, or check a clone with its history"
        yield Finding(str(path), "`registered` is asked from git", found, "the history", "warning", mend)
    report = f"`leakboard report --scale {results.scale}` writes it again"
    yield from limited(path, _table_differences(path, verdict.text_of(table)), report)
    for row in table.itertuples():
        place = f"baselines/{row.paper}/published.yaml"
        what = f"{row.run} {row.metric} ({results.scale})"
        ours = f"{row.ours:.6g} [{row.low:.6g}, {row.high:.6g}], n={row.n}"
        if row.verdict == "missed" and row.gates and not row.cause:
            mend = "find the cause; where committed trials show that it is true, state it as the entry's `cause`"
            expected = f"{row.published} (tolerance {row.tolerance:.6g})"
            yield Finding(place, what, ours, expected, mend=mend)
        if row.verdict == "not run" and row.n:
            mend = f"`leakboard rescore {row.paper} --scale {results.scale}`, or reproduce with --fresh"
            yield Finding(place, what, f"absent in some of {row.n} trials", "a value in each", "warning", mend)


def _leaderboard_findings(results: Results) -> Iterator[Finding]:
    path = results.file("leaderboard.csv")
    report = f"`leakboard report --scale {results.scale}` writes it again"
    yield from limited(path, _table_differences(path, tables.board_text(tables.leaderboard(results))), report)
