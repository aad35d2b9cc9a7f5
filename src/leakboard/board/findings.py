"""What does not hold in a checkout, one finding each, and how findings are gathered: never with a traceback."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from leakboard.errors import Fault

RELATIVE = 1.1e-5  # one unit in the sixth significant digit, the last that the files hold
SHOWN = 5  # differences named per file; the rest are counted

Difference = tuple[str, Any, Any]  # what, found, expected


@dataclass(frozen=True)
class Finding:
    """Something that does not hold. severity `error` fails the check, `warning` is only shown.

    mend: the command, or what else is to be done, that puts it right.
    """

    file: str
    what: str
    found: str
    expected: str
    severity: Literal["error", "warning"] = "error"
    mend: str = ""


def failed(findings: Iterable[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def rows(findings: Iterable[Finding]) -> list[tuple[str, str, str, str, str]]:
    """(severity, file, what, found, expected and what mends it) of each, errors first."""
    ordered = sorted(findings, key=lambda finding: finding.severity != "error")
    return [
        (one.severity, one.file, one.what, one.found, "; ".join(filter(None, (one.expected, one.mend))))
        for one in ordered
    ]


def sentences(findings: Iterable[Finding]) -> list[str]:
    """As `rows`, each as one line that no column cuts short."""
    return [
        f"{severity} {file}: {what}: found {found}; expected {expected}"
        for severity, file, what, found, expected in rows(findings)
    ]


def guarded(place: Path | str, findings: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings, or that they could not be had: a damaged file is a finding, whatever it does to its reader."""
    try:
        return list(findings())
    except Exception as error:
        return [Finding(str(place), "is readable", plain(error), "a whole file", mend=restore(place))]


def plain(error: Exception) -> str:
    """An error in one line; those that are not written for readers by their kind as well."""
    said = " ".join(str(error).split())
    return said if isinstance(error, (Fault, OSError)) else f"{type(error).__name__}: {said}"


def restore(place: Path | str) -> str:
    return f"`git checkout -- {place}` restores what was committed"


def limited(file: Path | str, differences: Iterable[Difference], mend: str = "") -> Iterator[Finding]:
    """At most `SHOWN` findings of one file, then how many more there are."""
    listed = list(differences)
    for what, found, expected in listed[:SHOWN]:
        yield Finding(str(file), what, str(found), str(expected), mend=mend)
    if len(listed) > SHOWN:
        yield Finding(str(file), "more differences", str(len(listed) - SHOWN), "0", mend=mend)


def some(names: Iterable[object], most: int = SHOWN) -> str:
    """`a, b and 3 more`"""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def same(one: Any, other: Any) -> bool:
    """Equal, or equal numbers to six significant digits; numbers may come as text."""
    if one == other:
        return True
    try:
        return math.isclose(float(one), float(other), rel_tol=RELATIVE)
    except (TypeError, ValueError):
        return False
