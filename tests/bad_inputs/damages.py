"""Ways to damage a file: what stands in a case beside the file's name."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

Damage = str | bytes | Callable[[Path], None]


def swap(old: str, new: str) -> Damage:
    """The first `old` in the file becomes `new`."""

    def edit(path: Path) -> None:
        text = path.read_text()
        assert old in text, f"{path} holds no {old!r}"
        path.write_text(text.replace(old, new, 1))

    return edit


def as_table(rows: list[list[str]]) -> str:
    """Rows as CSV: a cell with a comma, as processors have in their names, is quoted."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def cell(column: str, value: str, line: int = 2) -> Damage:
    """One cell of a table, by its column and its line in the file."""

    def edit(path: Path) -> None:
        rows = list(csv.reader(io.StringIO(path.read_text())))
        rows[line - 1][rows[0].index(column)] = value
        path.write_text(as_table(rows))

    return edit


def add(more: str | bytes) -> Damage:
    """Something more at the end of the file."""
    content = more.encode() if isinstance(more, str) else more
    return _changed(lambda old: old + content)


def cut(count: int) -> Damage:
    """All but the last `count` bytes."""
    return _changed(lambda old: old[:-count])


def again(line: int) -> Damage:
    """One line of the file once more, at its end."""
    return _changed(lambda old: old + old.splitlines(keepends=True)[line - 1])


def _changed(change: Callable[[bytes], bytes]) -> Damage:
    def edit(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return edit


def without(column: str) -> Damage:
    """A table that lacks a column."""

    def edit(path: Path) -> None:
        rows = list(csv.reader(io.StringIO(path.read_text())))
        at = rows[0].index(column)
        path.write_text(as_table([row[:at] + row[at + 1 :] for row in rows]))

    return edit


def instead(make: Callable[[Path], object]) -> Damage:
    """Something else in place of the file."""

    def edit(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return edit


FOLDER = instead(lambda path: path.mkdir(parents=True))
PIPE = instead(lambda path: os.mkfifo(path))
LOOP = instead(lambda path: path.symlink_to(path.name))
DANGLING = instead(lambda path: path.symlink_to("nothing_there"))
ZEROS = instead(lambda path: path.symlink_to("/dev/zero"))
GONE = instead(lambda path: None)
