"""Published against ours, for readers: the table in the README, and the three columns of `leakboard reproduce`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from leakboard.board import verdict
from leakboard.board.registered import POST_HOC
from leakboard.record.results import Results
from leakboard.record.trial_lines import write_text

BEGIN, END = "<!-- replication:begin -->", "<!-- replication:end -->"
VERDICTS = ("reproduced", "missed", "undecided", "not run")
MOST_LINES = 40
IDENTITY = ["paper", "run", "metric", "where"]
NUMBERS, TEXTS = ("ours", "low", "high"), ("published", "verdict", "registered", "cause", "provenance")
SOURCES = ("verified", "secondary", "theorem")


def read_verdicts(results: Results) -> pd.DataFrame:
    """`published.csv`, text in text columns; an empty frame where there is none."""
    path = results.file("published.csv")
    if not path.exists():
        return pd.DataFrame(columns=[*IDENTITY, "gates", *NUMBERS, "n", *TEXTS])
    texts = {name: str for name in (*IDENTITY, *TEXTS)}
    return pd.read_csv(path, dtype=texts, keep_default_na=False, na_values={name: [""] for name in NUMBERS})


def kind_of(row: Mapping[Any, Any]) -> str:
    """What an entry is counted as; '' for what is shown and not counted: of memory or off a figure, and post hoc."""
    if row["provenance"] in verdict.SHOWN_ONLY or row["registered"] == POST_HOC:
        return ""
    if row["provenance"] == "ours":
        return "our own claims"
    return f"{'claims' if is_claim(row) else 'numbers'}, {row['provenance']}"


def is_claim(row: Mapping[Any, Any]) -> bool:
    return str(row["published"])[:1] in "<>"


KINDS = (*(f"{what}, {source}" for what in ("numbers", "claims") for source in SOURCES), "our own claims")


def counted(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """(verdicts by what was promised and where that was read, what else is shown, in a sentence).

    A miss whose cause is known is a miss.
    """
    kinds = pd.Series([kind_of(row) for row in table.to_dict("records")], index=table.index, dtype=object)
    rows = {
        kind: [int(((kinds == kind) & (table["verdict"] == word)).sum()) for word in VERDICTS]
        for kind in KINDS
        if (kinds == kind).any()
    }
    shown = table[kinds == ""]
    late = shown[shown["registered"] == POST_HOC]
    rest = Counter(shown.drop(late.index)["provenance"])
    parts = [f"{count} of {name}" if name == "memory" else f"{count} off a {name}" for name, count in rest.items()]
    parts += [f"{len(late)} post hoc (set or changed after their trials)"] if len(late) else []
    sentence = f"Shown and not counted: {', '.join(parts)}." if parts else ""
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(VERDICTS)), sentence


def replication_table(results: Results) -> str:
    """Markdown, at most `MOST_LINES` lines: verdicts counted by kind and source, then what gates, misses first."""
    table = read_verdicts(results)
    counts, sentence = counted(table)
    lines = [f"| | {' | '.join(VERDICTS)} |", f"| --- |{' ---: |' * len(VERDICTS)}"]
    lines += [
        f"| {kind} | {' | '.join(map(str, row))} |" for kind, row in zip(counts.index, counts.values, strict=True)
    ]
    lines += ["", sentence] if sentence else []
    gating = table[table["gates"].map(lambda value: str(value).lower() == "true").astype(bool)]
    urgency = gating["verdict"].map({"missed": 0, "undecided": 1, "reproduced": 2, "not run": 3})
    listed = [
        _line(row) for row in gating.assign(urgency=urgency).sort_values("urgency", kind="stable").to_dict("records")
    ]
    room = MOST_LINES - len(lines) - 3
    if len(listed) > room:
        more = f"| | and {len(listed) - room + 1} more in `results/{results.scale}/published.csv` | | | |"
        listed = [*listed[: max(room - 1, 0)], more]
    heading = [
        "| paper | what gates | published | ours [95 % interval] (n) | verdict |",
        "| --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *(["", *heading, *listed] if listed else [])])


def _line(row: dict[Any, Any]) -> str:
    """A number by its place in the paper, a claim by its sentence and the difference that it is about."""
    if is_claim(row):
        what, published = f"{row['where'].split(' - ')[0]}: {row['metric']}", f"difference {row['published']}"
    else:
        what, published = f"{row['where']}: {row['metric']}", row["published"]
    what = what.replace("|", "\\|")
    return f"| {row['paper']} | {what} | {published} | {interval_text(row)} | {row['verdict']} |"


def interval_text(row: dict[Any, Any]) -> str:
    """`ours [low, high] (n)` of one row of `published.csv`; `-` where there is no number."""
    ours, low, high = (float("nan" if row[name] == "" else row[name]) for name in ("ours", "low", "high"))
    return "-" if math.isnan(ours) else f"{ours:.4g} {brackets(low, high)} (n = {int(row['n'])})"


def brackets(low: float, high: float) -> str:
    """An interval; of trials too few for one, none."""
    return "[-]" if math.isnan(low) or math.isnan(high) else f"[{low:.4g}, {high:.4g}]"


def update_readme(path: Path, results: Results) -> None:
    """Put the replication table between the two marks of the file; ValueError where they are not both there."""
    write_text(path, _renewed(path, results))


def readme_is_stale(path: Path, results: Results) -> bool:
    """Whether the table in the file is not the one that `published.csv` gives."""
    return Path(path).read_text(encoding="utf-8") != _renewed(path, results)


def _renewed(path: Path, results: Results) -> str:
    text = Path(path).read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{replication_table(results)}\n{END}{after}"


def comparison(published_here: pd.DataFrame, committed: pd.DataFrame) -> pd.DataFrame:
    """Two frames of verdicts -> paper, run, metric, published, committed, here, verdict; one row per row of `here`.

    committed and here: `ours [low, high] (n)` as text. verdict: that of here; where the committed one differs, both.
    """
    there = dict(_keyed(committed))
    compared = []
    for key, row in _keyed(published_here):
        before = there.get(key)
        old = "not run" if before is None else str(before["verdict"])
        compared.append(
            {
                **{name: row[name] for name in ("paper", "run", "metric", "published")},
                "committed": "-" if before is None else interval_text(before),
                "here": interval_text(row),
                "verdict": row["verdict"] if row["verdict"] == old else f"{row['verdict']} (committed: {old})",
            }
        )
    return pd.DataFrame(compared, columns=["paper", "run", "metric", "published", "committed", "here", "verdict"])


def _keyed(table: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], dict[Any, Any]]]:
    """Each row with what identifies it; of several rows alike in that, the first, the second, ..."""
    seen: Counter[tuple[str, ...]] = Counter()
    for row in table.to_dict("records"):
        key = tuple(str(row[name]) for name in IDENTITY)
        seen[key] += 1
        yield (*key, str(seen[key])), row
