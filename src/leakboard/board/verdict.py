"""Every published number and claim against ours: reproduced, missed, undecided or not run.

Bands are two-sided (too good misses too) and come from the paper's side alone: few trials of ours never widen one. Of
the kinds of device only one is used, that with most trials, CUDA on a tie; a claim takes both its sides from the same.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pandas as pd

from leakboard.board.estimates import Estimate, Sample, against, difference, estimate, most_trials, samples
from leakboard.board.registered import POST_HOC, STATED_BY, UNKNOWN, Promise, registered, stated
from leakboard.config import Claim, PublishedNumber, Row, Scale, controls, paper_names, papers_on, params, published
from leakboard.metrics import COSTS, RATES, lower_is_better
from leakboard.record.results import Results
from leakboard.record.trial_lines import write_text

COLUMNS = (
    "paper", "run", "metric", "where", "provenance", "gates", "published", "tolerance", "ours", "low", "high", "n",
    "verdict", "registered", "cause",
)  # fmt: skip
# The least that a metric's band reaches to either side: five points of a rate, 1 dB, 0.05 of a similarity.
LEAST_BAND = {**dict.fromkeys((*RATES, "ssim", "lpips"), 0.05), "psnr": 1.0}
ENOUGH_FOR_NUMBERS, ENOUGH_FOR_CLAIMS = 30, 10  # trials, what was drawn independently
SHOWN_ONLY = ("memory", "figure")  # provenances of what is shown, never gates and is never counted as reproduced


@dataclass(frozen=True)
class Stored:
    """The trials of one scale, as verdicts ask for them. unasked: papers of whose commits git could not be asked."""

    results: Results
    lines: Callable[[str, str], pd.DataFrame]
    stated: Callable[[], dict[Promise, str]]
    unasked: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, results: Results) -> Stored:
        file = results.file("published.csv")
        return cls(results, functools.cache(results.current_lines), functools.cache(lambda: stated(file)))

    def samples(self, paper: str, row: Row, metric: str) -> dict[str, Sample]:
        """{device kind: what the row's trials scored}"""
        lines = self.lines(row.paper or paper, row.run)
        return samples(lines, row.variant, metric, self.results.benchmark(row.run).batch)

    def commits(self, paper: str, rows: Iterable[Row]) -> set[str]:
        """Where the code stood that made the rows' trials."""
        return {
            str(commit)
            for row in rows
            for lines in [self.lines(row.paper or paper, row.run)]
            for commit in lines.loc[lines["variant"] == row.variant, "commit"]
        }

    def registered(self, named: dict[str, object], entry: PublishedNumber | Claim, rows: Iterable[Row]) -> str:
        """Whether the entry stood before its trials: by git, else as the row of `published.csv` states that is
        `named` the same.
        """
        paper = str(named["paper"])
        stood = registered(paper, entry, self.results.scale, self.commits(paper, rows))
        if stood is not None:
            return stood
        self.unasked.add(paper)
        return self.stated().get(tuple(_text(named[name]) for name in STATED_BY), UNKNOWN)

    def controls(self, run: str, metric: str, kind: str) -> list[Sample]:
        """What the controls of a board score, as far as the metric means something for them."""
        if metric in COSTS:
            return []
        asked, known = self.results.benchmark(run), controls()
        rows = [(paper, row) for paper in papers_on(run) for row in params(paper).variants_on(asked)]
        here = [one for one in rows if one in known]
        found = [self.samples(paper, Row(run=run, variant=row), metric).get(kind) for paper, row in here]
        return [one for one in found if one is not None and estimate(one.values, metric, one.batch).exists]


def band(number: PublishedNumber) -> float:
    """How far ours may lie from the published value: the file's tolerance, which is the paper's own standard error, or
    the least of the metric's kind.
    """
    return max(number.tolerance, LEAST_BAND.get(number.metric, 0.0))


def number_verdict(number: PublishedNumber, ours: Estimate) -> str:
    """`missed` when the interval lies outside of the band; `reproduced` when ours lies in it, of enough trials and with
    an interval that is no wider; `undecided`: anything between.
    """
    reach = band(number) + 1e-12
    if not ours.exists:
        return "not run"
    if ours.beyond(number.value + reach) or ours.below(number.value - reach):
        return "missed"
    narrow = ours.high - ours.low <= 2 * reach
    within = abs(ours.ours - number.value) <= reach
    return "reproduced" if within and narrow and ours.n >= ENOUGH_FOR_NUMBERS else "undecided"


def claim_threshold(claim: Claim) -> float:
    """What the difference left - right is compared with; the margin widens `>=` and `<=` and sharpens `>` and `<`."""
    return claim.margin if claim.relation in (">", "<=") else -claim.margin


def claim_verdict(claim: Claim, apart: Estimate, above_controls: bool = True) -> str:
    """`reproduced` when the interval of the difference lies beyond the threshold, of enough trials and with the winner
    above every control; `missed` when all of it lies on the other side; `undecided`: anything between.
    """
    limit = claim_threshold(claim)
    if not apart.exists:
        return "not run"
    closed = claim.relation in (">=", "<=")
    upwards = claim.relation in (">", ">=")
    near, far = (apart.low, apart.high) if upwards else (-apart.high, -apart.low)
    limit = limit if upwards else -limit
    if near > limit or (closed and near >= limit):
        return "reproduced" if above_controls and apart.n >= ENOUGH_FOR_CLAIMS else "undecided"
    return "missed" if far < limit or (not closed and far <= limit) else "undecided"


def winner(claim: Claim) -> Row | None:
    """The row that a claim says to be the better one, or as good; None where it says that a row falls short."""
    upwards = (claim.relation in (">", ">=")) != lower_is_better(claim.metric)
    return claim.left if upwards else claim.right


def _judged_number(stored: Stored, paper: str, number: PublishedNumber) -> dict[str, object]:
    row = Row(run=number.run, variant=number.variant)
    kinds = stored.samples(paper, row, number.metric)
    chosen = most_trials(kinds)
    ours = Estimate() if chosen is None else estimate(chosen.values, number.metric, chosen.batch)
    word, tells = number_verdict(number, ours), True
    for control in stored.controls(number.run, number.metric, _kind(kinds, chosen)):
        tells = tells and abs(float(control.values.mean()) - number.value) > band(number)
    if word == "reproduced" and not tells:
        word = "undecided"  # a control scores as much
    named = {
        "paper": paper,
        "run": f"{number.run}/{number.variant}",
        "metric": number.metric,
        "where": " ".join(number.where.split()),
        "published": _text(number.value),
        "tolerance": band(number),
    }
    return _judged(stored, named, number, [row], ours, word, tells and ours.n >= ENOUGH_FOR_NUMBERS)


def _judged_claim(stored: Stored, paper: str, claim: Claim) -> dict[str, object]:
    left = stored.samples(paper, claim.left, claim.metric)
    if claim.right is None:
        rows, other = [claim.left], _text(claim.value)
        chosen = most_trials(left)
        apart = Estimate() if chosen is None else against(chosen, float(claim.value or 0.0))
        kind = _kind(left, chosen)
    else:
        rows, other = [claim.left, claim.right], _label(paper, claim.right)
        right = stored.samples(paper, claim.right, claim.metric)
        both = {kind: difference(left[kind], right[kind]) for kind in left.keys() & right.keys()}
        kind = max(both, key=lambda kind: (both[kind].n, kind == "cuda", kind), default="")
        apart = both.get(kind, Estimate())
    word = claim_verdict(claim, apart, not apart.exists or _above_controls(stored, paper, claim, kind))
    named = {
        "paper": paper,
        "run": f"{_label(paper, claim.left)} vs {other}",
        "metric": claim.metric,
        "where": " ".join(f"{claim.says} - {claim.where}".split()),
        "published": f"{claim.relation} {_text(claim_threshold(claim) + 0.0)}",
        "tolerance": claim.margin,
    }
    return _judged(stored, named, claim, rows, apart, word, apart.n >= ENOUGH_FOR_CLAIMS)


def _above_controls(stored: Stored, paper: str, claim: Claim, kind: str) -> bool:
    """Whether what the claim says to be better is better than every control of its board."""
    best = winner(claim)
    if best is None or (mine := stored.samples(paper, best, claim.metric).get(kind)) is None:
        return True
    apart = [difference(mine, control) for control in stored.controls(best.run, claim.metric, kind)]
    return all(one.below(0) if lower_is_better(claim.metric) else one.beyond(0) for one in apart)


def _kind(kinds: dict[str, Sample], chosen: Sample | None) -> str:
    return next((kind for kind, one in kinds.items() if one is chosen), "")


def _label(paper: str, row: Row) -> str:
    """run/variant, with the paper in front where it is another's."""
    place = f"{row.run}/{row.variant}"
    return place if row.paper in (None, paper) else f"{row.paper}:{place}"


def _judged(
    stored: Stored,
    named: dict[str, object],
    entry: PublishedNumber | Claim,
    rows: list[Row],
    ours: Estimate,
    word: str,
    enough: bool,
) -> dict[str, object]:
    """A row of the table. named: its cells that say what is promised."""
    stood = stored.registered(named, entry, rows) if ours.exists else UNKNOWN
    return {
        **named,
        "provenance": entry.provenance,
        "gates": entry.gates and enough and stood != POST_HOC and entry.provenance not in SHOWN_ONLY,
        "ours": ours.ours,
        "low": ours.low,
        "high": ours.high,
        "n": ours.n,
        "verdict": word,
        "registered": stood,
        "cause": " ".join(entry.cause.split()),
    }


def red(table: pd.DataFrame) -> pd.Series:
    """Which entries fail: they gate and are missed, and nobody has said why."""
    return (table["verdict"] == "missed") & table["gates"] & (table["cause"] == "")


def _entries(scale: Scale) -> Iterator[tuple[str, PublishedNumber | Claim]]:
    """(paper, number or claim) of this scale, in the order of the files."""
    for paper in paper_names():
        said = published(paper)
        if said is not None:
            yield from ((paper, number) for number in said.numbers if scale in number.scale)
            yield from ((paper, claim) for claim in said.claims if scale in claim.scale)


def verdicts(results: Results, stored: Stored | None = None) -> pd.DataFrame:
    """The content of `published.csv`: one row per published number and claim, `COLUMNS`.

    A number: `published` its value, `tolerance` its band. A claim: `run` names both sides, `published` the relation
    that the difference left - right must satisfy, `tolerance` the margin, `where` starts with its sentence; ours, low
    and high are the difference, over pairs of trials with the same victim where there are such. gates: whether a miss
    is a failure, which takes enough trials and an entry that stood before them.
    """
    stored = stored or Stored.of(results)
    rows = [
        _judged_number(stored, paper, entry)
        if isinstance(entry, PublishedNumber)
        else _judged_claim(stored, paper, entry)
        for paper, entry in _entries(results.scale)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _text(value: object) -> str:
    """A cell as the file has it: numbers to six significant digits."""
    return str(value) if isinstance(value, str) else f"{value:.6g}"


def text_of(table: pd.DataFrame) -> str:
    """The table as the CSV text that is committed: numbers to six significant digits, empty where there is none."""
    buffer = io.StringIO()
    shown = table.assign(gates=table["gates"].map({True: "true", False: "false"}))
    shown.to_csv(buffer, index=False, float_format="%.6g", lineterminator="\n")
    return buffer.getvalue()


def write_verdicts(results: Results) -> pd.DataFrame:
    """Write `published.csv` and return what it holds."""
    judged = verdicts(results)
    write_text(results.file("published.csv"), text_of(judged))
    return judged
