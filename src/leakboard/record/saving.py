"""Saving what must not be lost: whole or not at all, one process at a time, cut short by no signal. No torch, no data.

Left out: a loss of power. Nothing is flushed to the disk before its new name counts, the file system sees to that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from leakboard.errors import Fault

PART = ".part"  # how the name of a file ends that is being written; git ignores these
LOCK_SECONDS = 300.0  # a save takes well below a second, deriving a stage's pictures a few
# Those that end or stop a process. SIGINT is put back last: it is the one that raises, and would leave others behind.
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGINT)


class SaveError(Fault):
    """Something could not be saved; the message names the file, what was found and what was expected."""


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text; line feeds stay as they are."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Atomic: a reader, or a run killed half-way, sees the old file or the new one.

    SaveError where the disk is full or the folder cannot be written; the old file is then as it was.
    """
    path = Path(path)
    try:
        with uncut():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                Path(temporary).chmod(0o644)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise _fault(path, error, f"room for {len(content)} bytes") from None


def _fault(path: Path, error: OSError | NotImplementedError, room: str = "room for a file") -> SaveError:
    number = getattr(error, "errno", None)
    found, expected = getattr(error, "strerror", None) or str(error), "a folder that can be written"
    if number in (errno.ENOSPC, errno.EDQUOT):
        there = next(folder for folder in path.resolve().parents if folder.exists())
        found, expected = f"{found}, {shutil.disk_usage(there).free} bytes free", room
    return SaveError(f"{path}: not saved: found {found}; expected {expected}. What was saved before is untouched")


@contextlib.contextmanager
def uncut() -> Iterator[None]:
    """Signals that end or stop this process wait until the block is done, and do then what they always do.

    A signal that is ignored stays ignored. When the block itself fails, its error goes on and the signals are dropped:
    the error ends the run as well, and what a signal promises (all is kept) would not be true. Outside of the main
    thread there is nothing to do: Python interrupts no other.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in ENDING}
    mine = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
    came: list[int] = []
    try:
        for number in mine:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in mine.items():
            signal.signal(number, handler)
    for late in dict.fromkeys(came):
        signal.raise_signal(late)


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process at a time among all that name this lock file. It may not be nested.

    SaveError where the file cannot be made, or another process holds it for `LOCK_SECONDS`.
    """
    held = FileLock(lock, timeout=LOCK_SECONDS)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout:
        long = f"held by another process for {LOCK_SECONDS:g} s"
        raise SaveError(f"{lock}: not saved: found it {long}; expected a stopped run to go on or to be ended") from None
    except (OSError, NotImplementedError) as error:
        raise _fault(lock, error) from None
    try:
        yield
    finally:
        held.release()


def prepare(folder: Path) -> None:
    """Make a folder ready for saves, alone in it: what killed saves left goes; SaveError now and not after hours."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".*{PART}"):
            left.unlink(missing_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _fault(folder, error) from None
