"""What may stand in a content file: whole numbers, numbers, flags, names, words for readers. Nothing is converted.

`true` is no number and `'7'` none either, and every number has a bound: what is beyond it is a slip of the pen, and
would be computed for ever.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from leakboard.errors import brief

T = TypeVar("T")
MOST = 1_000_000  # of whatever is counted: trials, images, clients, epochs
FARTHEST = 1_000_000_000  # of evaluations, and places in a data set
NAME = re.compile(r"[a-z0-9_]{1,100}")
A_NAME = "a name of a-z, 0-9 and _"
TAG = re.compile(r"<[A-Za-z/!?]")  # how a tag of HTML starts, which markdown takes for one
MOST_LETTERS = 2000


def is_name(text: str) -> bool:
    """Whether papers, benchmarks and rows may bear it: it becomes part of paths, pages and tables."""
    return NAME.fullmatch(text) is not None


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"found {brief(text)}, expected {A_NAME}")
    return text


def _setting(text: str) -> str:
    if not (text.isascii() and text.isidentifier()):
        raise ValueError(f"found {brief(text)}, expected the name of a setting")
    return text


def _words(text: str) -> str:
    """Words for readers, in one line."""
    words = text.strip()
    if not words or len(words) > MOST_LETTERS:
        raise ValueError(f"found {brief(text)}, expected words, at most {MOST_LETTERS} letters")
    hidden = [letter for letter in words if unicodedata.category(letter)[0] == "C" or letter in "\u2028\u2029"]
    if hidden:
        raise ValueError(f"found {brief(text)}, expected one line without control characters")
    return text


def _line(text: str) -> str:
    """Words that may stand on every page as they are."""
    if found := TAG.search(_words(text)):
        raise ValueError(f"found {brief(text[found.start() :])}, expected words without HTML")
    return text


def _note(text: str) -> str:
    return text and _line(text)


def _cell(text: str) -> str:
    if "|" in text:
        raise ValueError(f"found {brief(text)}, expected words without |, which ends a cell of a table")
    return text


def _path(value: Any) -> Any:
    if not isinstance(value, (str, Path)) or not str(value) or not str(value).isprintable() or value == Path():
        raise ValueError(f"found {brief(value)}, expected the path of a file or folder")
    return value


def _strength(value: Any) -> float | Path:
    """A number; or the path of a file, where a word stands."""
    if isinstance(value, (str, Path)):
        return Path(_path(value))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"found {brief(value)}, expected a number")
    return float(value)


def _different(values: Sequence[T]) -> Sequence[T]:
    if len(set(values)) != len(values) or not values:
        raise ValueError(f"found {brief(list(values))}, expected one or more, each once")
    return values


def finite(value: Any) -> Any:
    """Whatever YAML holds, if every number in it is finite; ValueError names the first that is not."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"found {value}, expected a finite number")
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        try:
            finite(inner)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return value


def with_range_of_classes(value: Any) -> Any:
    """A section in which `classes: 0-4` is short for [0, 1, 2, 3, 4]."""
    if isinstance(value, dict) and isinstance(text := value.get("classes"), str):
        first, _, last = text.partition("-")
        digits = first.isdecimal() and last.isdecimal() and len(last) < 10
        if not (digits and int(first) <= int(last) < MOST):
            raise ValueError(f"classes {brief(text)}; expected a list, or FIRST-LAST below {MOST:,}")
        return {**value, "classes": tuple(range(int(first), int(last) + 1))}
    return value


Count = Annotated[int, Field(strict=True, ge=1, le=MOST)]
CountOrNone = Annotated[int, Field(strict=True, ge=0, le=MOST)]
Spot = Annotated[int, Field(strict=True, ge=0, le=FARTHEST)]
Evaluations = Annotated[int, Field(strict=True, ge=1, le=FARTHEST)]
Side = Annotated[int, Field(strict=True, ge=1, le=10_000)]  # of an image, in pixels; of a layer, in units
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Strength = Annotated[float | Path, PlainValidator(_strength)]  # which what it is for holds to its own bounds
Positive = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)]
NotNegative = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]
Part = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, lt=1)]
Flag = Annotated[bool, Field(strict=True)]
Name = Annotated[str, AfterValidator(_name)]
Setting = Annotated[str, AfterValidator(_setting)]
Value = Annotated[Any, AfterValidator(finite)]
Words = Annotated[str, AfterValidator(_words)]
Line = Annotated[str, AfterValidator(_line)]
Note = Annotated[str, AfterValidator(_note)]
Cell = Annotated[str, AfterValidator(_line), AfterValidator(_cell)]
OwnPath = Annotated[Path, BeforeValidator(_path)]
Different = AfterValidator(_different)
Classes = Annotated[tuple[Spot, ...], Different]
