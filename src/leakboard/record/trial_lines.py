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
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import leakboard
from leakboard.config import Benchmark, digest, params, root
from leakboard.errors import Fault
from leakboard.metrics import MEASURED


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


class RecordError(Fault, ValueError):
    """A `trials.csv` is damaged; the message names file, line, what was found and what was expected."""


def frame(lines: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """Lines as dictionaries -> DataFrame with all `COLUMNS` and their types; what a line does not name is absent."""
    listed = list(lines)
    unknown = sorted({name for line in listed for name in line} - set(COLUMNS))
    if unknown:
        raise RecordError(f"a trial line has no column {', '.join(unknown)}")
    return _typed({name: [cell(name, line.get(name)) for line in listed] for name in COLUMNS})


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
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return frame()
    return _read(Path(path), status.st_mtime_ns, status.st_size, status.st_ino).copy()


@functools.lru_cache(maxsize=512)
def _read(path: Path, *state: int) -> pd.DataFrame:
    """Parsed once for each state of the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: byte {error.start} is not UTF-8 text") from None
    if not text.endswith("\n"):
        line = text.count("\n") + 1
        raise RecordError(f"{path}:{line}: found a line without its end, expected a line feed: the file was cut off")
    header, *body = _cells(path, text)
    _check_header(path, header)
    columns = {name: [_parsed(path, at, name, row[index]) for at, row in body] for index, name in enumerate(header[1])}
    absent = {name: [cell(name, None)] * len(body) for name in COLUMNS if name not in columns}
    return _typed({**columns, **absent})


def _cells(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """(line number, cells) of every line; all have as many cells as the header."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            if rows and len(row) != len(rows[0][1]):
                raise RecordError(f"{path}:{reader.line_num}: found {len(row)} cells, expected {len(rows[0][1])}")
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise RecordError(f"{path}:{reader.line_num}: found {error}, expected a CSV line") from None
    return rows


def _check_header(path: Path, header: tuple[int, list[str]]) -> None:
    """Columns that the suite gained later may lack; those that say what a line is may not."""
    names = header[1]
    unknown = [name for name in names if name not in COLUMNS]
    lacking = [name for name in (*IDENTITY, "status") if name not in names]
    if unknown or len(set(names)) != len(names):
        raise RecordError(f"{path}:1: found column {unknown or 'twice'}, expected {', '.join(COLUMNS)}")
    if lacking:
        raise RecordError(f"{path}:1: found no column {', '.join(lacking)}, expected {', '.join(COLUMNS)}")


def _parsed(path: Path, line: int, name: str, cell: str) -> Any:
    try:
        if name == "status" and cell not in STATUSES:
            raise ValueError(f"one of {', '.join(STATUSES)}")
        if name in ("mse_each", "psnr_each"):
            numbers(cell)
        if name in TEXTS:
            return cell
        if name in FLAGS:
            return {"true": True, "false": False, "": False}[cell]
        return int(cell) if name in INTEGERS else float(cell or "nan")
    except (ValueError, KeyError) as error:
        wanted = str(error) if name == "status" else "true or false" if name in FLAGS else "a number"
        raise RecordError(f"{path}:{line}: found {name} {cell!r}, expected {wanted}") from None


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


def write_text(path: Path, text: str) -> None:
    """Atomic: a reader, or a run killed half-way, sees the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
    """12 hex digits of the sha256 of an attack's source file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def present_keys(paper: str, benchmark: Benchmark) -> dict[str, Key]:
    """The key of every variant that `paper` runs on this benchmark, from the files as they lie there now."""
    attack = root() / "baselines" / paper / "attack.py"
    variants = params(paper).variants_on(benchmark)
    source = attack_sha(attack)
    return {
        name: (source, settings_hash(attack, settings), benchmark.hash, leakboard.ENGINE)
        for name, settings in variants.items()
    }


def settings_hash(attack: Path, settings: Mapping[str, Any]) -> str:
    """12 hex digits over the settings that differ from the defaults in the attack's source."""
    defaults = _defaults(attack, attack_sha(attack))
    return digest({name: value for name, value in settings.items() if name not in defaults or defaults[name] != value})


@functools.lru_cache(maxsize=256)
def _defaults(attack: Path, sha: str) -> dict[str, Any]:
    """The defaults of the attack's fields, read without running it; one that is no literal is taken to differ."""
    found: dict[str, Any] = {}
    for node in ast.walk(ast.parse(attack.read_text())):
        if not isinstance(node, ast.ClassDef) or not any(_is_reconstruct(part) for part in node.body):
            continue
        for part in node.body:
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and part.value is not None:
                with contextlib.suppress(ValueError):
                    found[part.target.id] = ast.literal_eval(part.value)
    return found


def _is_reconstruct(part: ast.stmt) -> bool:
    return isinstance(part, ast.FunctionDef) and part.name == "reconstruct"
