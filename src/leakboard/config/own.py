"""Files of one's own that a benchmark names, images or a network: where they lie, and a hash of what they hold."""

from __future__ import annotations

import functools
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from leakboard.config.checkout import root
from leakboard.config.sections import ConfigError

ABSENT = "absent"
DEEPEST = 4  # folders within one another: a split, a class, and room for what is said about them
State = tuple[int, int, int]  # size, and the times at which content and entry changed, in ns


def place(path: Path) -> Path:
    """Where a file or folder of one's own lies: a relative path starts at the checkout. ConfigError outside of one, and
    where the path goes round in circles.
    """
    try:
        path = path.expanduser()
        return (path if path.is_absolute() else root() / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links, or a home that nobody has
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} cannot be read: {error}") from None


def visible(folder: Path) -> list[Path]:
    """What lies in a folder and is not hidden, sorted by name, as text."""
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)


def fingerprint(path: Path) -> str:
    """12 hex digits of the sha256 over what a file holds, or over names and contents of all files in the sub-folders
    of a folder, hidden ones apart. `absent` where there is nothing: boards are read without the images, too.

    Cheap to call again: a file is read once for each of its states. ConfigError when it cannot be read, and where a
    folder holds what is no file, or folders deeper than any that is read.
    """
    there = place(path)
    try:
        if there.is_dir():
            inside = [file for folder in visible(there) if folder.is_dir() for file in _files(folder)]
            return _of_folder(there, tuple((file.relative_to(there).as_posix(), _state(file)) for file in inside))[:12]
        return _of_file(there, _state(there))[:12] if there.is_file() else ABSENT
    except OSError as error:
        raise ConfigError(f"{there} cannot be read: {error}") from None


def _files(folder: Path, depth: int = 1) -> Iterator[Path]:
    if depth > DEEPEST:
        raise ConfigError(f"{folder} lies too deep, expected a sub-folder for each class, which holds pictures")
    for path in visible(folder):
        if path.is_dir():
            yield from _files(path, depth + 1)
        else:
            yield path


def _state(file: Path) -> State:
    """What changes whenever the file does."""
    found = os.stat(file)  # noqa: PTH116 - a hot path
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{file} is no regular file, expected one")
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


@functools.lru_cache(maxsize=64)
def _of_folder(folder: Path, states: tuple[tuple[str, State], ...]) -> str:
    parts = (f"{name}\0{_of_file(folder / name, state)}\n" for name, state in states)
    return hashlib.sha256("".join(parts).encode()).hexdigest()


@functools.lru_cache(maxsize=2**17)
def _of_file(file: Path, state: State) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
