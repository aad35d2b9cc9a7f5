"""Tables of records as text: every cell in its kind and its bounds, and a message that names file, line and column."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from leakboard.config.kinds import A_NAME, NAME
from leakboard.config.texts import text_of
from leakboard.errors import Fault, brief

EXECUTIONS = ("loop", "stacked", "compiled", "cuda_graph")
INTEGER = re.compile(r"-?[0-9]{1,19}")
NUMBER = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]{1,4})?|-?inf")
HASH = re.compile(r"\w{1,64}", re.ASCII)
DEVICE = re.compile(r"[a-z]{1,20}")
EXECUTION = re.compile(rf"({'|'.join(EXECUTIONS)})( x[1-9][0-9]{{0,3}})?")
Parse = Callable[[str], Any]  # a cell -> its value; ValueError says what was expected
Line = tuple[int, Sequence[str]]  # number in the file, cells


class RecordError(Fault, ValueError):
    """A record is damaged; the message names file, line, what was found and what was expected."""


# ---------------------------------------------------------------------------------------------------------------------
# Kinds of cells.


def text(cell: str) -> str:
    return cell


def matching(pattern: re.Pattern[str], wanted: str, absent: bool = False) -> Parse:
    """Text in a form, or nothing where it may be absent."""

    def parse(cell: str) -> str:
        if not (pattern.fullmatch(cell) or (absent and not cell)):
            raise ValueError(wanted)
        return cell

    return parse


name, name_if_any = (matching(NAME, A_NAME, absent) for absent in (False, True))
device = matching(DEVICE, "a kind of device, such as cpu")
sha, sha_if_any = (matching(HASH, "the digits of a hash", absent) for absent in (False, True))


def one_of(words: Sequence[str]) -> Parse:
    def parse(cell: str) -> str:
        if cell not in words:
            raise ValueError(f"one of {', '.join(filter(None, words))}")
        return cell

    return parse


def flag(cell: str) -> bool:
    """true, false, or nothing, which is false."""
    if cell not in ("true", "false", ""):
        raise ValueError("true or false")
    return cell == "true"


def whole(low: int = 0, high: int = 2**63 - 1) -> Parse:
    """A whole number, within bounds."""

    def parse(cell: str) -> int:
        if not INTEGER.fullmatch(cell) or not low <= int(cell) <= high:
            raise ValueError("a number" if not INTEGER.fullmatch(cell) else _between(low, high))
        return int(cell)

    return parse


def number(low: float = -math.inf, high: float = math.inf, *, endless: bool = False, absent: bool = True) -> Parse:
    """A number within bounds; NaN for nothing, where that may be. endless: whether inf may stand, for never."""

    def parse(cell: str) -> float:
        if not cell and absent:
            return math.nan
        if not NUMBER.fullmatch(cell):
            raise ValueError("a number")
        value = float(cell)
        if not low <= value <= high or (math.isinf(value) and not endless):
            raise ValueError(f"{'a' if endless else 'a finite'} number{_from_to(low, high)}")
        return value

    return parse


def numbers(low: float = -math.inf) -> Parse:
    """Numbers with spaces between them; the text is kept."""
    each = number(low, absent=False)

    def parse(cell: str) -> str:
        for part in cell.split():
            each(part)
        return cell

    return parse


def _between(low: int, high: int) -> str:
    return f"a number from {low} up" if high == 2**63 - 1 else f"a number from {low} to {high}"


def _from_to(low: float, high: float) -> str:
    return (f" from {low:g}" if low > -math.inf else "") + (f" up to {high:g}" if high < math.inf else "")


# ---------------------------------------------------------------------------------------------------------------------
# Tables.


def table(path: Path, known: Sequence[str], needed: Sequence[str]) -> tuple[list[str], list[Line]]:
    """(columns, lines) of a CSV file. RecordError unless it is whole, with columns of `known`, all of `needed`, each
    once, and as many cells in every line.
    """
    content = text_of(path, RecordError)
    if not content:
        raise RecordError(f"{path}:1: found nothing, expected {', '.join(needed)}: the file was cut off")
    if not content.endswith("\n"):
        line = content.count("\n") + 1
        raise RecordError(f"{path}:{line}: found a line without its end, expected a line feed: the file was cut off")
    (_, columns), *body = _lines(path, content)
    unknown = [column for column in columns if column not in known]
    twice = sorted({column for column in columns if columns.count(column) > 1})
    lacking = [column for column in needed if column not in columns]
    if unknown or twice:
        found = f"column {brief(unknown[:3])}" if unknown else f"column {', '.join(twice)} twice"
        raise RecordError(f"{path}:1: found {found}, expected {', '.join(known)}")
    if lacking:
        raise RecordError(f"{path}:1: found no column {', '.join(lacking)}, expected {', '.join(known)}")
    return list(columns), body


def _lines(path: Path, content: str) -> list[Line]:
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    rows: list[Line] = []
    try:
        for row in reader:
            if rows and len(row) != len(rows[0][1]):
                raise RecordError(f"{path}:{reader.line_num}: found {len(row)} cells, expected {len(rows[0][1])}")
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise RecordError(f"{path}:{reader.line_num}: found {error}, expected a CSV line") from None
    return rows


def typed(path: Path, columns: Sequence[str], lines: Sequence[Line], kinds: Mapping[str, Parse]) -> dict[str, list]:
    """{column: its values}; RecordError names file, line, column and cell."""
    found: dict[str, list] = {}
    for index, column in enumerate(columns):
        parse, values = kinds[column], []
        for at, row in lines:
            try:
                values.append(parse(row[index]))
            except ValueError as error:
                raise RecordError(f"{path}:{at}: found {column} {brief(row[index])}, expected {error}") from None
        found[column] = values
    return found


def refuse_twice(path: Path, lines: Sequence[Line], keys: Sequence[tuple]) -> None:
    """RecordError where two lines have the same key; keys: one a line."""
    first: dict[tuple, int] = {}
    for (at, _), key in zip(lines, keys, strict=True):
        if key in first:
            named = " ".join(map(str, key))
            raise RecordError(f"{path}:{at}: found {named} twice, in line {first[key]} too; expected it once")
        first[key] = at
