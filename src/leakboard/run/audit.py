"""Committed trials attacked again: does the same question, asked again, give the number that stands in its line?

A line that was computed on this machine, with the same torch, threads and execution, must come out bit for bit. On
another machine rounding differs, and grows along the steps of a search: under other vector instructions about every
second search ends more than `MOVED` away. There the ranking metric must agree to `MOVED`, or the search must at least
have started alike: the first snapshot of its committed curve to `STARTED`. What only drifted is shown as such.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from leakboard.config import Benchmark, paper_names, params
from leakboard.config.recipes import Recipe
from leakboard.errors import Fault
from leakboard.metrics import COSTS, MEASURED
from leakboard.recipes import store
from leakboard.recipes.classifier import record_folder
from leakboard.recipes.trained import needs_of
from leakboard.record import trial_lines
from leakboard.record.results import Results
from leakboard.run import kept, machine
from leakboard.run.execution import Execution
from leakboard.run.jobs import Group
from leakboard.run.opened import died_twice
from leakboard.run.stage import Stage
from leakboard.run.trained import priors_of
from leakboard.run.trial import Outcome, attempt_group
from leakboard.run.workers import Report, silent, spread
from leakboard.victim.network import network
from leakboard.victim.secrets import public, secret

MOST_SECONDS = 60.0  # recorded, of the computation that a line is drawn from: all of its group
MOVED = 1e-4  # relative; what the golden test allows
STARTED = 1e-3  # relative; what rounding alone may do to the MSE of a first snapshot
MACHINE = ("device_kind", "device", "torch", "threads", "execution")
ALWAYS = (*trial_lines.KEY, "seed", "victim_sha", "status")
BITS = (
    "model_sha", *(name for name in MEASURED if name != "seconds_to_20"), "evaluations", "restarts", "loss",
    "mse_each", "psnr_each", "reconstruction_sha",
)  # fmt: skip
NEED_WEIGHTS = ("lpips",)  # reported only where the weights are

Verdict = Literal["same bits", "within 1e-4", "drifted", "differs"]


@dataclass(frozen=True)
class Drawn:
    """A committed trial. line: of its store."""

    stage: Stage
    line: dict[str, Any]

    @property
    def name(self) -> tuple[Any, ...]:
        """(scale, paper, benchmark, variant, trial)"""
        benchmark = self.stage.benchmark
        return benchmark.scale, self.stage.paper, benchmark.name, self.line["variant"], self.line["trial"]

    @property
    def file(self) -> Path:
        return self.stage.folder / "trials.csv"

    @property
    def execution(self) -> Execution | None:
        """None where the line names none that there is."""
        return Execution.named(str(self.line["execution"]))

    @property
    def short(self) -> bool:
        """Whether the computation that it was part of took at most `MOST_SECONDS`."""
        together = self.execution.group if self.execution else 1
        return bool(self.line["seconds"] * together <= MOST_SECONDS)


@dataclass(frozen=True)
class Compared:
    """A committed trial beside the same trial attacked now. why: what differs; mend: what is to be done about it."""

    drawn: Drawn
    seconds: float
    verdict: Verdict
    why: str = ""
    mend: str = ""


def rerun(
    results: Sequence[Results],
    count: int,
    seed: int,
    workers: int | Literal["ray"] = 0,
    report: Report = silent,
    told: Callable[[pd.DataFrame], None] = lambda drawn: None,
) -> list[Compared]:
    """Attack `count` committed trials again, drawn by `seed`; `told` of them before it begins. Fault if there is none.

    A trial that was part of a group is computed with its whole group.
    """
    drawn = draw(results, count, seed)
    told(drawn_table(drawn))
    machine.settle()
    groups = [_group(one) for one in drawn]
    whose = {id(group): one for group, one in zip(groups, drawn, strict=True) if group}
    found = [
        Compared(one, math.nan, "differs", *_unknown(one))
        for group, one in zip(groups, drawn, strict=True)
        if not group
    ]
    for group, outcomes in spread(attempt_group, [group for group in groups if group], workers, died_twice):
        one = whose[id(group)]
        found.append(compared(one, next(end for end in outcomes if end.line["trial"] == one.line["trial"])))
        report("attacked again", len(found), len(drawn), "")
    return sorted(found, key=lambda one: one.drawn.name)


def differ(found: Sequence[Compared]) -> bool:
    return any(one.verdict == "differs" for one in found)


def draw(results: Sequence[Results], count: int, seed: int) -> list[Drawn]:
    """Trials that ran on a CPU, succeeded, took at most `MOST_SECONDS`, and whose data and weights are here.

    Rows take turns in random order, each with one trial at random, so that no row is drawn twice before all were.
    """
    rng, rows = random.Random(seed), [row for one in results for row in _rows(one)]
    rng.shuffle(rows)
    for row in rows:
        rng.shuffle(row)
    in_turn = (one for turn in itertools.zip_longest(*rows) for one in turn if one is not None)
    found = list(itertools.islice((one for one in in_turn if _here(one)), count))
    if not found:
        lines, places = sum(map(len, rows)), ", ".join(str(one.papers) for one in results)
        raise Fault(
            f"no trial to attack again: {places} hold {lines} CPU trials of at most {MOST_SECONDS:g} s that succeeded, "
            "and of none of them data and weights are here (`leakboard data list`)"
        )
    return found


def _rows(results: Results) -> Iterator[list[Drawn]]:
    """The candidates of every row that stands on a board, in a fixed order."""
    for paper in paper_names():
        for run in params(paper).boards_at(results.scale):
            stage = Stage(paper, results.benchmark(run), results)
            lines = trial_lines.read(stage.folder / "trials.csv")
            fitting = (lines["device_kind"] == "cpu") & (lines["status"] == "ok")
            lines = lines[fitting & (lines["trial"] < stage.benchmark.trials)]
            for variant in stage.variants:
                row = [Drawn(stage, line) for line in lines[lines["variant"] == variant].to_dict("records")]
                yield [one for one in row if one.short]


def _here(one: Drawn) -> bool:
    """Whether images and weights are at hand: nothing is fetched or trained for an audit.

    Weights that are not committed were trained where they lie, and may be others than those of another machine.
    """
    benchmark, trial = one.stage.benchmark, one.line["trial"]
    beside, mine = record_folder(benchmark), _alike(one.line, machine.describe(machine.device_of("cpu")), MACHINE[:3])
    try:
        secret(benchmark, trial), public(benchmark)
        for recipe in _recipes(one, benchmark):
            weights = store.find(recipe, beside)
            if weights is None or (weights.path.parent != beside and not mine):
                return False
        network(benchmark, trial)
    except Fault:
        return False
    return True


def _recipes(one: Drawn, benchmark: Benchmark) -> list[Recipe]:
    rows, trials = one.stage.rows("cpu"), [one.line["trial"]]
    attack = dict(zip(rows.variants, rows.attacks(trials), strict=True))[one.line["variant"]][1]
    return [need.recipe for need in needs_of(benchmark, priors_of(attack, benchmark, trials), trials)]


def _group(one: Drawn) -> Group:
    """The computation that the line was part of, in the execution that it names; empty where there is none such."""
    variant, trial, count = one.line["variant"], one.line["trial"], one.stage.benchmark.trials
    how = one.execution
    if how is None:
        return ()
    job = one.stage.rows("cpu").groups({variant: [trial]})[0][0]
    return tuple(replace(job, trial=member, execution=how) for member in how.members(trial, count))


def _unknown(one: Drawn) -> tuple[str, str]:
    return f"execution {one.line['execution']!r} is none", _restored(one)


def compared(one: Drawn, outcome: Outcome) -> Compared:
    """The line that is committed against the line of now."""
    stored, got = one.line, trial_lines.frame([outcome.line]).to_dict("records")[0]
    seconds, here = got["seconds"], _alike(stored, got, MACHINE)
    if wrong := _unlike(stored, got, ALWAYS):
        stale = any(name in trial_lines.KEY for name in wrong)
        return Compared(one, seconds, "differs", _said(stored, got, wrong), _again(one) if stale else _restored(one))
    if here:
        wrong = [name for name in _unlike(stored, got, BITS) if _text(stored, name) and not _excused(got, name)]
        if wrong:
            return Compared(one, seconds, "differs", _said(stored, got, wrong), _restored(one))
        return Compared(one, seconds, "same bits")
    metric = _ranking(one.stage.benchmark)
    elsewhere = (
        f"there {stored['device']}, torch {stored['torch']}, {stored['threads']:g} threads, {stored['execution']}"
    )
    if math.isclose(stored[metric], got[metric], rel_tol=MOVED, abs_tol=1e-12):
        return Compared(one, seconds, "within 1e-4", elsewhere)
    why = f"{_said(stored, got, [metric])}; {elsewhere}"
    if _started_alike(one, outcome):
        return Compared(one, seconds, "drifted", why, "only the machine that the line names can tell more")
    return Compared(one, seconds, "differs", why, _restored(one))


def _ranking(benchmark: Benchmark) -> str:
    """The metric that ranks; of boards about cost what does not depend on the clock."""
    metric = benchmark.metrics[0]
    return "evaluations" if metric in COSTS else metric


def _started_alike(one: Drawn, outcome: Outcome) -> bool:
    """Whether the first snapshot is that of the committed curve; False where either has none."""
    curve = kept.read_curves(one.stage.folder / "curve.csv")
    own = curve[(curve["variant"] == one.line["variant"]) & (curve["trial"] == one.line["trial"])]
    first = own[own["device_kind"] == "cpu"].sort_values("step").head(1).to_dict("records")
    now = [row for row in outcome.curve if first and row["step"] == first[0]["step"]]
    return bool(now) and math.isclose(first[0]["mse"], now[0]["mse"], rel_tol=STARTED)


def _alike(stored: dict[str, Any], got: dict[str, Any], names: Sequence[str]) -> bool:
    return not _unlike(stored, got, names)


def _unlike(stored: dict[str, Any], got: dict[str, Any], names: Sequence[str]) -> list[str]:
    return [name for name in names if _text(stored, name) != _text(got, name)]


def _text(line: dict[str, Any], name: str) -> str:
    """A cell as the store has it, so that what is compared is what is committed."""
    value = trial_lines.cell(name, line[name])
    return trial_lines.number_text(value) if isinstance(value, float) else str(value)


def _excused(got: dict[str, Any], name: str) -> bool:
    return name in NEED_WEIGHTS and not _text(got, name)


def _said(stored: dict[str, Any], got: dict[str, Any], names: Sequence[str]) -> str:
    """The first two differences in words."""
    told = [f"{name} {_text(stored, name) or '-'} in the line, {_text(got, name) or '-'} here" for name in names[:2]]
    more = [f"{len(names) - 2} more columns"] if len(names) > 2 else []
    reason = [f"({got['reason']})"] if "status" in names and got["reason"] else []
    return "; ".join([*told, *more, *reason])


def _again(one: Drawn) -> str:
    scale, paper, run, *_ = one.name
    return f"the line is stale: `leakboard reproduce {paper} {run} --scale {scale}`"


def _restored(one: Drawn) -> str:
    scale, paper, run, *_ = one.name
    return (
        f"`git checkout -- {one.file}` where the line was changed; where code was, raise ENGINE and "
        f"`leakboard reproduce {paper} {run} --scale {scale}`"
    )


def drawn_table(drawn: Sequence[Drawn]) -> pd.DataFrame:
    names = ("scale", "paper", "benchmark", "variant", "trial")
    rows = [(*one.name, one.line["execution"], f"{one.line['seconds']:.3g}") for one in drawn]
    return pd.DataFrame(rows, columns=[*names, "execution", "seconds"])


def table(found: Sequence[Compared]) -> pd.DataFrame:
    """What came out, for readers; each difference with what is to be done."""
    names = ("scale", "paper", "benchmark", "variant", "trial")
    rows = [
        (*one.drawn.name, f"{one.seconds:.3g}", one.verdict, "; ".join(filter(None, (one.why, one.mend))))
        for one in found
    ]
    return pd.DataFrame(rows, columns=[*names, "seconds", "verdict", "why"])
