"""What all errors of the reader's making have in common: the console shows their message and no traceback."""

from __future__ import annotations

from typing import Any

MOST_SHOWN = 80  # characters of what was found


class Fault(Exception):
    """A file, a call or a data set is not as it should be; the message says what was found and what was expected."""


def brief(value: Any) -> str:
    """What was found, for a message: as Python writes it, and of what is long the beginning."""
    written = repr(value[: 2 * MOST_SHOWN] if isinstance(value, (str, bytes)) else value)
    if len(written) > MOST_SHOWN:
        size = f"; {len(value)} in all" if isinstance(value, (str, bytes, list, tuple, dict)) else ""
        return f"{written[: MOST_SHOWN - 10]}...{size}"
    return written


def one_line(text: str) -> str:
    """Text as one line that no terminal acts on: every white space a space, what cannot be printed its escape."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in " ".join(text.split())
    )
