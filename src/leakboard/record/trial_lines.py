"""`trials.csv`, the store: one line per variant, trial, device kind and execution. No torch, no data.

A line is current when its key (attack source, settings, benchmark, engine) is the present one, else stale: stale lines
are kept and shown, never ranked or averaged, and go when a new line takes their place.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import functools
import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import leakboard
from leakboard.config import SCALES, Benchmark, digest, params, root
from leakboard.config.texts import bytes_of, state_of, there
from leakboard.errors import brief
from leakboard.metrics import MEASURED, RATES, REACHED
from leakboard.record import cells
from leakboard.record.cells import RecordError
from leakboard.record.saving import write_text


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


TEXTS = _names(
    "attack variant benchmark scale benchmark_hash attack_sha settings_hash victim_sha model_sha status reason "
    "reconstruction_sha execution device_kind device torch cuda commit mse_each psnr_each"
)
INTEGERS = _names("benchmark_version attack_version engine trial seed")
FLAGS = ("dirty",)
COLUMNS = (
    *_names(
        "attack variant benchmark scale benchmark_version benchmark_hash attack_version attack_sha settings_hash "
        "engine victim_sha model_sha trial seed status reason seconds prepare_seconds peak_bytes evaluations restarts "
        "execution device_kind device torch cuda threads commit dirty"
    ),
    *MEASURED,
    *_names("loss mse_each psnr_each reconstruction_sha"),
)
LATER = (*MEASURED, "reconstruction_sha")  # written only where a line has it
KEY = ("attack_sha", "settings_hash", "benchmark_hash", "engine")
PLACE = ("variant", "trial", "device_kind", "execution")
IDENTITY = (*PLACE, "victim_sha", "model_sha", *KEY)
ORDER = ("variant", "device_kind", "execution", "trial")
STATUSES = ("ok", "failed", "timeout", "out_of_memory", "skipped")
FAILURES = ("failed", "timeout", "out_of_memory")


Key = tuple[str, str, str, int]
ALIKE: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int, float), float: (int, float), str: (str,)}
NEVER_NEGATIVE = _names("seconds prepare_seconds peak_bytes evaluations mse")
KINDS: dict[str, cells.Parse] = {
    **{name: cells.text for name in TEXTS},
    **{name: cells.whole() for name in INTEGERS},
    **{name: cells.number() for name in MEASURED},
    **{name: cells.number(0) for name in NEVER_NEGATIVE},
    **{name: cells.number(0, 1) for name in RATES},
    **{name: cells.number(0, endless=True) for name in (*REACHED, "gradient_norm")},
    **{name: cells.number(endless=True) for name in ("loss", "restarts")},  # what an attack says of itself
    "variant": cells.name,
    **{name: cells.name_if_any for name in ("attack", "benchmark")},
    **{name: cells.sha for name in ("attack_sha", "settings_hash", "benchmark_hash")},
    **{name: cells.sha_if_any for name in ("victim_sha", "model_sha", "reconstruction_sha")},
    "benchmark_version": cells.whole(1),
    "engine": cells.whole(-1),  # what no engine is, for lines that shall be stale
    "scale": cells.one_of(("", *SCALES)),
    "status": cells.one_of(STATUSES),
    "device_kind": cells.device,
    "execution": cells.matching(cells.EXECUTION, f"one of {', '.join(cells.EXECUTIONS)}, or of them x a number"),
    "threads": cells.number(1),
    "dirty": cells.flag,
    "mse_each": cells.numbers(0),
    "psnr_each": cells.numbers(),
}


def frame(lines: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """Lines as dictionaries -> DataFrame with all `COLUMNS` and their types; what a line does not name is absent."""
    listed = list(lines)
    unknown = sorted({name for line in listed for name in line} - set(COLUMNS))
    if unknown:
        raise RecordError(f"a trial line has no column {', '.join(unknown)}")
    if not listed:
        return _nothing().copy()
    return _typed({name: [cell(name, line.get(name)) for line in listed] for name in COLUMNS})


@functools.cache
def _nothing() -> pd.DataFrame:
    """No lines: asked for twice a stage, and slow to make."""
    return _typed({name: [] for name in COLUMNS})


def _typed(columns: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(list(columns[name]), dtype=_kind(name)) for name in COLUMNS})


def _kind(name: str) -> Any:
    if name in TEXTS:
        return str
    return np.int64 if name in INTEGERS else np.bool_ if name in FLAGS else np.float64


def cell(name: str, value: Any) -> Any:
    """One value in its column's type; None and NaN are absent: '' for text, NaN for numbers."""
    absent = value is None or (isinstance(value, float) and math.isnan(value))
    if name in TEXTS:
        return "" if absent else joined(value) if isinstance(value, (list, tuple, np.ndarray)) else str(value)
    if name in FLAGS:
        return bool(value) and not absent
    if name in INTEGERS:
        if absent:
            raise RecordError(f"a trial line lacks {name}")
        return int(value)
    return math.nan if absent else float(value)


def number_text(value: float) -> str:
    """Nine significant digits, whole numbers in full, '' for NaN: short, and a second writing changes nothing."""
    if math.isnan(value):
        return ""
    whole = 1e9 <= abs(value) < 2**53 and float(value).is_integer()
    return str(int(value)) if whole else f"{value:.9g}"


def joined(values: Iterable[float]) -> str:
    """Numbers -> the text of a `*_each` cell."""
    return " ".join(number_text(float(value)) for value in values)


def numbers(cell: str) -> np.ndarray:
    """The text of a `*_each` cell -> float array (B,), empty when not available."""
    return np.array([float(part) for part in cell.split()], dtype=float)


def read(path: Path) -> pd.DataFrame:
    """The lines of one `trials.csv`; a missing file is an empty frame. RecordError says where the file is damaged."""
    path = Path(path)
    if not there(path):
        return frame()
    return _read(path, *state_of(path)).copy()


@functools.lru_cache(maxsize=512)
def _read(path: Path, *state: int) -> pd.DataFrame:
    """Parsed once for each state of the file. Columns that the suite gained later may lack, those of a key may not."""
    columns, lines = cells.table(path, COLUMNS, (*IDENTITY, "status"))
    found = cells.typed(path, columns, lines, KINDS)
    cells.refuse_twice(path, lines, list(zip(*(found[name] for name in PLACE), strict=True)))
    absent = {name: [cell(name, None)] * len(lines) for name in COLUMNS if name not in columns}
    return _typed({**found, **absent})


def write(path: Path, lines: pd.DataFrame) -> None:
    """Write `trials.csv` whole or not at all, sorted: the same lines give the same bytes.

    A metric that no line has is no column, nor is the hash of reconstructions where lines are older than it.
    """
    ordered = lines.sort_values(list(dict.fromkeys((*ORDER, *IDENTITY))), kind="stable")
    columns = [name for name in COLUMNS if name not in LATER or (ordered[name].notna() & (ordered[name] != "")).any()]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*([_text(name, value) for value in ordered[name].tolist()] for name in columns), strict=True))
    write_text(path, buffer.getvalue())


def _text(name: str, value: Any) -> str:
    if name in FLAGS:
        return "true" if value else "false"
    if name in TEXTS:
        return " ".join(str(value).split())
    return str(int(value)) if name in INTEGERS else number_text(float(value))


def merge(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """`old` with the lines of `new` in it, sorted.

    A line of `new` takes its place (variant, trial, device kind, execution) from whatever `old` has there, and drops
    the lines that this trial has on this kind of device under another key, whatever their execution; all else stays,
    so two machines' files for different trials merge in either order.
    """
    if not new.empty and not old.empty:
        trials = list(PLACE[:3])
        keys = dict(zip(_tuples(new, trials), _tuples(new, KEY), strict=True))
        pairs = zip(_tuples(old, trials), _tuples(old, KEY), strict=True)
        old = old[[keys.get(trial, key) == key for trial, key in pairs]]
    if new.empty or old.empty:
        kept = old if new.empty else new.drop_duplicates(list(PLACE), keep="last")
    else:
        kept = pd.concat([old, new], ignore_index=True).drop_duplicates(list(PLACE), keep="last")
    return kept.sort_values(list(dict.fromkeys((*ORDER, *IDENTITY))), kind="stable", ignore_index=True)


def _tuples(lines: pd.DataFrame, names: Sequence[str]) -> list[tuple]:
    return list(zip(*(lines[name] for name in names), strict=True))


def current(lines: pd.DataFrame, keys: Mapping[str, Key]) -> pd.Series:
    """Which lines stand under the present key of their variant; a variant that is not in `keys` is stale."""
    found = zip(lines["variant"], *(lines[name] for name in KEY), strict=True)
    return pd.Series([keys.get(variant) == tuple(key) for variant, *key in found], index=lines.index, dtype=bool)


def missing(
    lines: pd.DataFrame, variant: str, key: Key, trials: Iterable[int], device_kind: str, execution: str
) -> list[int]:
    """Those of `trials` without a current line, in order. A failure or a timeout is a result: it is not missing.

    A line of the plain loop answers for every execution: it is what the others have to agree with.
    """
    fitting = lines["execution"].isin({execution, "loop"})
    there = current(lines, {variant: key}) & (lines["device_kind"] == device_kind) & fitting
    present = set(lines.loc[there, "trial"].tolist())
    return [trial for trial in trials if trial not in present]


def attack_sha(path: Path) -> str:
    """12 hex digits of the sha256 of an attack's source file; RecordError where that cannot be read."""
    return hashlib.sha256(bytes_of(Path(path), RecordError)).hexdigest()[:12]


def present_keys(paper: str, benchmark: Benchmark) -> dict[str, Key]:
    """The key of every variant that `paper` runs on this benchmark, from the files as they lie there now."""
    attack = root() / "baselines" / paper / "attack.py"
    variants = params(paper).variants_on(benchmark)
    source = attack_sha(attack)
    return {
        name: (source, settings_hash(attack, settings), benchmark.hash, leakboard.engine_of(paper))
        for name, settings in variants.items()
    }


def settings_hash(attack: Path, settings: Mapping[str, Any]) -> str:
    """12 hex digits over the settings that differ from the defaults in the attack's source.

    RecordError where one is of another kind than its default.
    """
    defaults = _defaults(attack, attack_sha(attack))
    for name, value in settings.items():
        kinds = ALIKE.get(type(defaults.get(name)))
        if kinds is not None and type(value) not in kinds:
            expected = f"one like its default {defaults[name]!r}"
            raise RecordError(f"{attack}: found {brief(value)} as the setting {name}, expected {expected}")
    return digest({name: value for name, value in settings.items() if name not in defaults or defaults[name] != value})


@functools.lru_cache(maxsize=256)
def _defaults(attack: Path, sha: str) -> dict[str, Any]:
    """The defaults of the attack's fields, read without running it; one that is no literal is taken to differ."""
    found: dict[str, Any] = {}
    for node in ast.walk(_tree(attack)):
        if not isinstance(node, ast.ClassDef) or not any(_is_reconstruct(part) for part in node.body):
            continue
        for part in node.body:
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and part.value is not None:
                with contextlib.suppress(ValueError):
                    found[part.target.id] = ast.literal_eval(part.value)
    return found


def _tree(attack: Path) -> ast.Module:
    """RecordError where a source is no Python."""
    try:
        return ast.parse(bytes_of(attack, RecordError))  # which may declare another encoding
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, RecordError):
            raise
        line, said = getattr(error, "lineno", None) or 1, getattr(error, "msg", None) or str(error) or "too deep"
        raise RecordError(f"{attack}:{line}: found {said}, expected Python") from None


def _is_reconstruct(part: ast.stmt) -> bool:
    return isinstance(part, ast.FunctionDef) and part.name == "reconstruct"
