"""`speed.csv`: what every execution of an attack's gradient matching costs on a benchmark, and which one is chosen.

Written by `make speed`, read by `run/execution.py` and by the boards. CUDA and CPU rows live side by side. No torch.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from leakboard import config
from leakboard.config import Scale
from leakboard.config.texts import state_of, there
from leakboard.record import cells
from leakboard.record.cells import EXECUTIONS, RecordError
from leakboard.record.saving import write_text

__all__ = ["EXECUTIONS"]
GAIN = 1.05  # how many times faster than the loop an execution must be to be worth choosing
SMALLEST = 1e-12  # of what is divided by
Place = tuple[str, str, str]  # (benchmark, attack, device kind)


@dataclass(frozen=True)
class Measured:
    """One execution, measured.

    device: its kind, cpu or cuda. stacked: reconstructions that are one computation.
    seconds_per_step: seconds of one gradient evaluation of ONE reconstruction, the whole attack divided by the
    evaluations that it made; by CUDA events on CUDA, else processor seconds. cpu_seconds_per_step: processor seconds.
    ratio_to_loop: times faster than the plain loop. ratio_to_floor: times slower than one forward, backward and double
    backward. Both are medians over rounds in which all three were timed one after the other.
    warm_up_seconds: wall time of the first three evaluations, compilation included; where problems end one by one, with
    what is compiled for the few that are left. peak_bytes: as in `trials.csv`.
    """

    benchmark: str
    attack: str
    device: str
    execution: str
    stacked: int
    seconds_per_step: float
    cpu_seconds_per_step: float
    ratio_to_loop: float
    ratio_to_floor: float
    warm_up_seconds: float
    peak_bytes: int
    device_name: str = ""
    torch: str = ""
    threads: int = 1
    commit: str = ""
    chosen: bool = False

    @property
    def place(self) -> Place:
        return self.benchmark, self.attack, self.device

    @property
    def steps_per_second(self) -> float:
        return 1 / self.seconds_per_step

    @property
    def label(self) -> str:
        return self.execution if self.stacked == 1 else f"{self.execution} x{self.stacked}"


COLUMNS = (
    "benchmark", "attack", "device", "execution", "stacked", "seconds_per_step", "steps_per_second",
    "cpu_seconds_per_step", "ratio_to_loop", "ratio_to_floor", "warm_up_seconds", "peak_bytes", "chosen",
    "device_name", "torch", "threads", "commit",
)  # fmt: skip


POSITIVE, COST = cells.number(SMALLEST, absent=False), cells.number(0, absent=False)
KINDS: dict[str, cells.Parse] = {
    "benchmark": cells.name,
    "attack": cells.name,
    "device": cells.device,
    "execution": cells.one_of(EXECUTIONS),
    "stacked": cells.whole(1, 9999),
    **{name: POSITIVE for name in ("seconds_per_step", "steps_per_second", "ratio_to_loop", "ratio_to_floor")},
    **{name: COST for name in ("cpu_seconds_per_step", "warm_up_seconds")},
    "peak_bytes": cells.whole(),
    "chosen": cells.flag,
    **{name: cells.text for name in ("device_name", "torch", "commit")},
    "threads": cells.whole(1),
}


def path(scale: Scale) -> Path:
    """The table of the checkout: a folder of results made elsewhere has none of its own."""
    return config.root() / "results" / scale / "speed.csv"


def choose(rows: Sequence[Measured], evaluations: int) -> list[Measured]:
    """The rows of one place, one of them chosen: the cheapest for all `evaluations` of the benchmark.

    evaluations: trials x budget, all that an attack may spend there. An execution costs its warm-up once and then
    its seconds per step; with few evaluations a compilation never pays. Those less than `GAIN` times as fast as the
    loop are not worth other bits: they do not stand for choice. On a tie the loop is chosen, else the first.
    """
    loops = [row for row in rows if row.execution == "loop"]
    if len(loops) != 1 or len({row.place for row in rows}) != 1:
        named = ", ".join(sorted({" ".join(row.place) for row in rows})) or "no row"
        raise ValueError(f"{named}: {len(loops)} rows of the plain loop, expected one, and one place")
    standing = [loops[0], *(row for row in rows if row.execution != "loop" and row.ratio_to_loop >= GAIN)]
    best = min(standing, key=lambda row: row.warm_up_seconds + row.seconds_per_step * evaluations)
    return [dataclasses.replace(row, chosen=row is best) for row in rows]


def merged(old: Iterable[Measured], new: Sequence[Measured]) -> list[Measured]:
    """`old` with `new` in it: what was measured anew replaces all rows of its place, and nothing else."""
    places = {row.place for row in new}
    kept = [row for row in old if row.place not in places]
    return sorted([*kept, *new], key=lambda row: row.place)


def read(file: Path) -> list[Measured]:
    """The rows of a `speed.csv`, none where there is no file; RecordError names file and line."""
    return list(_read(file, *state_of(file))) if there(file) else []


@functools.lru_cache(maxsize=64)
def _read(file: Path, *state: int) -> tuple[Measured, ...]:
    """Parsed once for each state of the file."""
    columns, lines = cells.table(file, COLUMNS, COLUMNS)
    values = cells.typed(file, columns, lines, KINDS)
    fields = [field.name for field in dataclasses.fields(Measured)]
    listed = zip(*(values[name] for name in fields), strict=True)
    rows = [Measured(**dict(zip(fields, one, strict=True))) for one in listed]
    cells.refuse_twice(file, lines, [(*row.place, row.label) for row in rows])
    chosen: set[Place] = set()
    for (at, _), row, steps in zip(lines, rows, values["steps_per_second"], strict=True):
        if row.execution == "loop" and row.stacked > 1:
            raise RecordError(f"{file}:{at}: found stacked {row.stacked} of a loop, expected 1")
        if not math.isclose(steps, row.steps_per_second, rel_tol=1e-4):
            wanted = f"{row.steps_per_second:.6g}, one by seconds_per_step"
            raise RecordError(f"{file}:{at}: found steps_per_second {steps:g}, expected {wanted}")
        if row.chosen and row.place in chosen:
            raise RecordError(f"{file}:{at}: found a second row of {' '.join(row.place)} chosen, expected one")
        chosen |= {row.place} if row.chosen else set()
    return tuple(rows)


def write(file: Path, rows: Iterable[Measured]) -> None:
    """Whole or not at all; numbers with six significant digits."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_text(getattr(row, name)) for name in COLUMNS] for row in rows)
    write_text(file, buffer.getvalue())


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def measured_on(benchmark: str) -> str:
    """The benchmark whose rows tell what a search costs on this one.

    A defence changes what is searched for and not the search: where a benchmark is like another, that one is measured.
    """
    return config.like(benchmark) or benchmark


def chosen(scale: Scale) -> dict[Place, Measured]:
    """The chosen row of every place of the checkout's table."""
    return {row.place: row for row in read(path(scale)) if row.chosen}


def seconds_per_step(scale: Scale, benchmark: str, attack: str, device: str) -> float:
    """Of the chosen execution; NaN where nothing was measured."""
    found = chosen(scale).get((measured_on(benchmark), attack, device))
    return found.seconds_per_step if found else math.nan


def shown(scale: Scale) -> pd.DataFrame:
    """The chosen execution of every place, as text for readers."""
    rows = chosen(scale).values()
    return pd.DataFrame(
        {
            "benchmark": [row.benchmark for row in rows],
            "attack": [row.attack for row in rows],
            "execution": [row.label for row in rows],
            "times as fast as the loop": [f"{row.ratio_to_loop:.2f}" for row in rows],
            "times its floor": [f"{row.ratio_to_floor:.2f}" for row in rows],
            "ms per step": [f"{1e3 * row.seconds_per_step:.3g}" for row in rows],
            "warm-up (s)": [f"{row.warm_up_seconds:.2g}" for row in rows],
            "device": [f"{row.device} ({row.device_name})" for row in rows],
        }
    )
