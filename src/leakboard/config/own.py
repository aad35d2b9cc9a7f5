"""Files of one's own that a benchmark names, images or a network: where they lie, and a hash of what they hold."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

ABSENT = "absent"
State = tuple[tuple[str, int, int, int], ...]  # (name, size, time of change, time of any change of its entry) per file


def place(path: Path) -> Path:
    """Where a file or folder of one's own lies: a relative path starts at the checkout. ConfigError outside of one."""
    from leakboard.config.files import root  # here, since files read benchmarks, which hash what their files hold

    path = path.expanduser()
    return (path if path.is_absolute() else root() / path).resolve()


def visible(folder: Path) -> list[Path]:
    """What lies in a folder and is not hidden, sorted by name, as text."""
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)


def fingerprint(path: Path) -> str:
    """12 hex digits of the sha256 over what a file holds, or over names and contents of all files in the sub-folders
    of a folder, hidden ones apart. `absent` where there is nothing: boards are read without the images, too.

    Cheap to call again: a file is read once for each of its states.
    """
    there = place(path)
    if there.is_dir():
        return _hash(
            there, _state(there, (file for folder in visible(there) if folder.is_dir() for file in _in(folder)))
        )
    return _hash(there, _state(there, [there])) if there.is_file() else ABSENT


def _in(folder: Path) -> Iterator[Path]:
    for path in visible(folder):
        if path.is_dir():
            yield from _in(path)
        else:
            yield path


def _state(top: Path, files: Iterator[Path] | list[Path]) -> State:
    """What changes whenever one of the files does."""
    found = ((file.relative_to(top).as_posix(), os.stat(file)) for file in files)  # noqa: PTH116 - a hot path
    return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in found)


@functools.lru_cache(maxsize=64)
def _hash(top: Path, state: State) -> str:
    sha = hashlib.sha256()
    for name, *_ in state:
        content = (top / name).read_bytes()
        sha.update(content if name == "." else f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return sha.hexdigest()[:12]
