"""How every text file of a checkout is read: whole, as UTF-8, and only where there is such a file.

A folder, a pipe or a device in its place, a link that leads nowhere, another encoding: each is one clear message, and
none is waited for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from leakboard.errors import Fault

MOST_BYTES = 100_000_000
BINARY = "is not UTF-8 text"


def there(path: Path) -> bool:
    """Whether anything has this name, be it a link that leads nowhere: what is there must be readable."""
    return os.path.lexists(path)


def text_of(path: Path, fault: type[Fault], most: int = MOST_BYTES) -> str:
    """The text of a regular file of at most `most` bytes; `fault` names the file, what was found and expected."""
    content = bytes_of(path, fault, most)
    try:
        return content.decode("utf-8-sig")  # editors on Windows put a mark in front
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise fault(f"{path}:{line}: byte {error.start} {BINARY}, which was expected") from None


def bytes_of(path: Path, fault: type[Fault], most: int = MOST_BYTES) -> bytes:
    """The content of a regular file; `fault` as `text_of`."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a hot path
        wrong = _wrong(found, most)
        content = b"" if wrong else path.read_bytes()
    except FileNotFoundError:
        wrong = "does not exist" + (": it is a link that leads nowhere" if there(path) else "")
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        wrong = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if wrong:
        raise fault(f"{path} {wrong}")
    return content


def _wrong(found: os.stat_result, most: int) -> str:
    if stat.S_ISDIR(found.st_mode):
        return "is a folder, expected a file"
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file, expected one"
    return f"has {found.st_size:,} bytes, expected at most {most:,}" if found.st_size > most else ""


def refuse_devices(folders: Iterable[Path], fault: type[Fault]) -> None:
    """`fault` names what lies in these folders and is neither a file nor a folder: who reads it may wait for ever."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise fault(f"{path} is no regular file, expected one")


def state_of(path: Path) -> tuple[int, int, int]:
    """What changes whenever the file does; zeros where that cannot be told, and reading it says why."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a hot path
    except (OSError, ValueError):
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino
