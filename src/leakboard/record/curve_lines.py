"""`curve.csv`: quality at some steps of a search, one line a snapshot. No torch."""

from __future__ import annotations

import functools
from pathlib import Path

import pandas as pd

from leakboard.config.texts import state_of, there
from leakboard.record import cells

COLUMNS = ("variant", "trial", "device_kind", "step", "evaluations", "seconds", "loss", "mse", "psnr")
KINDS: dict[str, cells.Parse] = {
    "variant": cells.name,
    "trial": cells.whole(),
    "device_kind": cells.device,
    "step": cells.whole(1),
    "evaluations": cells.whole(),
    "seconds": cells.number(0, absent=False),
    "loss": cells.number(endless=True),  # what an attack says of itself
    "mse": cells.number(0),  # nothing where a search left the numbers
    "psnr": cells.number(),
}
PLACE = ("variant", "trial", "device_kind", "step", "evaluations")  # a step of one restart comes again in the next


def read(path: Path) -> pd.DataFrame:
    """The lines of one `curve.csv`, none where there is no file; RecordError says where it is damaged."""
    return _read(path, *state_of(path)).copy() if there(path) else _frame({name: [] for name in COLUMNS})


@functools.lru_cache(maxsize=512)
def _read(path: Path, *state: int) -> pd.DataFrame:
    """Parsed once for each state of the file."""
    columns, lines = cells.table(path, COLUMNS, COLUMNS)
    found = cells.typed(path, columns, lines, KINDS)
    cells.refuse_twice(path, lines, list(zip(*(found[name] for name in PLACE), strict=True)))
    return _frame(found)


def _frame(values: dict[str, list]) -> pd.DataFrame:
    """With the types that pandas would take from the file itself."""
    texts, wholes = ("variant", "device_kind"), ("trial", "step", "evaluations")
    kinds = {name: str if name in texts else "int64" if name in wholes else "float64" for name in COLUMNS}
    return pd.DataFrame({name: pd.Series(values[name], dtype=kinds[name]) for name in COLUMNS})
