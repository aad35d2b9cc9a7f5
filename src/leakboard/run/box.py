"""The attack in a process of its own: born of a fork server that has imported torch and no data.

What goes in is written by this side (a pickle of what is seen); what comes out are numbers and arrays, checked here.
Calls across the border, live rounds and black-box queries, are answered and counted on this side. A deadline ends the
process from outside; what it changes of its own state reaches nobody else.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import itertools
import math
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from torch import Tensor

from leakboard.attack import inside
from leakboard.attack.contract import AttackError
from leakboard.attack.inside import Task
from leakboard.attack.once import Parcel, send_images
from leakboard.attack.wire import WireError, plain, unpacked
from leakboard.errors import Fault
from leakboard.record.trial_lines import attack_sha
from leakboard.run import machine

PRELOAD = [
    "leakboard.attack.inside",
    "leakboard.attack.matching",
    "leakboard.attack.lbfgs",
    "leakboard.run.machine",
]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
HIDDEN = ("LEAKBOARD_DATA",)  # what the environment tells of where data lies
MOST_BOXES = 3  # kept by one process; they hold 60 to 220 MB each
LEAST_LIMIT, MOST_FOR_ONE = 2**26, 8  # bytes of a message: this many, and so many for each that went in
MOST_CRAFTED = 2**31
ASKING_SECONDS = 120.0  # for what is no attack: import, settings, `skips`, `prior`, `craft`

Message = tuple[dict[str, Any], dict[str, Tensor]]
Answer = Callable[[dict[str, Any], dict[str, Tensor]], tuple[Any, tuple[str, str] | None]]


class BoxEnded(Fault):
    """The process of an attack ended before it answered."""


class OutOfTime(TimeoutError):
    """The process of an attack was ended because its time was over."""


class Box:
    """One process with one attack in it. `talk` sends a task and hands over what comes back, message by message.

    kept: names of the public images that it has.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, Path(tempfile.mkdtemp(prefix="leakboard-"))
        self.connection, theirs = multiprocessing.get_context("forkserver").Pipe()
        self.process = _started((theirs, path, self.folder, machine.settle))
        theirs.close()
        self.pid = self.process.pid
        self.kept: set[str] = set()
        self.late = False
        self.watch = _Watch(self._expire)

    def talk(self, task: Task, given: Parcel, seconds: float, answer: Answer) -> Iterator[Message]:
        """Every message of the box, the last one with `end` in its header; its calls are given to `answer`.

        given: what is attacked, sent once the box says that the attack is `ready`; its public images come before.
        seconds: until its end from then on, without those of live rounds; to be ready it has ASKING_SECONDS. OutOfTime
        after that, BoxEnded when the process is gone, WireError when it sends what is no message of this task; the box
        is of no more use then.
        """
        task = dataclasses.replace(task, number=next(_numbers))
        asked = Parcel(task)
        most = MOST_CRAFTED if task.do == "craft" else LEAST_LIMIT + MOST_FOR_ONE * (len(asked) + len(given))
        limit = left = ASKING_SECONDS
        ready = False
        try:
            left -= self._under_watch(left, lambda: self._ask(asked, given))[1]
            while True:
                content, took = self._under_watch(left, lambda: self.connection.recv_bytes(most))
                header, arrays = unpacked(content)
                if header.get("task") != task.number:
                    raise WireError("a message of another task")
                left -= took
                if "ready" in header and not ready:
                    ready, limit, left = True, seconds, seconds
                    yield header, arrays
                    left -= self._under_watch(left, lambda: self.connection.send_bytes(given.content))[1]
                elif "call" in header:
                    began = time.monotonic()
                    said = pickle.dumps(answer(header, arrays))
                    if header["call"] == "query":
                        left -= time.monotonic() - began
                    left -= self._under_watch(left, lambda: self.connection.send_bytes(said))[1]  # noqa: B023
                else:
                    yield header, arrays
                    if "end" in header:
                        return
        except (EOFError, OSError, WireError) as error:
            self.end()
            if self.late:
                raise OutOfTime(f"more than {limit:g} s") from None
            raise (error if isinstance(error, WireError) else BoxEnded("the attack's process ended")) from None

    def _ask(self, asked: Parcel, given: Parcel) -> None:
        """The public images of both that it lacks, then the task."""
        send_images(self.connection, self.kept, asked, given)
        self.connection.send_bytes(asked.content)

    def _under_watch(self, seconds: float, work: Callable[[], Any]) -> tuple[Any, float]:
        """(what `work` gives, the seconds it took). Only a kill is a deadline: a message may stop in its middle."""
        began = time.monotonic()
        self.watch.wait_until(began + max(seconds, 0.0))
        try:
            return work(), time.monotonic() - began
        finally:
            self.watch.wait_until(math.inf)

    def _expire(self) -> None:
        """The end of the process; and of the line, which a child that left its group may still hold."""
        self.late = True
        self.kill()
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    def usable(self) -> bool:
        """Whether it waits for its next task, with nothing said that nobody asked for."""
        try:
            return not self.late and self.process.is_alive() and not self.connection.poll(0)
        except OSError:
            return False

    def kill(self) -> None:
        """The process and all that it started, by the number that it had from the beginning."""
        for how in (os.killpg, os.kill) if self.pid else ():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                how(self.pid, signal.SIGKILL)

    def end(self) -> None:
        self.watch.stop()
        self.kill()
        self.pid = None  # the number may be another process's by the next call
        self.connection.close()
        self.process.join(5)
        shutil.rmtree(self.folder, ignore_errors=True)


class _Watch(threading.Thread):
    """Calls `expire` when a moment has come that was not put off. One thread for all messages of a box: a timer for
    each would cost more than the message.
    """

    def __init__(self, expire: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.expire, self.until, self.changed = expire, math.inf, threading.Condition()
        self.start()

    def wait_until(self, moment: float) -> None:
        """The moment by `time.monotonic`, inf for none. Only an earlier one must wake the thread."""
        with self.changed:
            sooner, self.until = moment < self.until, moment
            if sooner:
                self.changed.notify()

    def stop(self) -> None:
        self.wait_until(-math.inf)

    def run(self) -> None:
        with self.changed:
            while self.until > -math.inf:
                if (left := self.until - time.monotonic()) > 0:
                    self.changed.wait(min(left, threading.TIMEOUT_MAX))
                else:
                    self.until = math.inf
                    self.expire()


_numbers = itertools.count(1)
_boxes: OrderedDict[tuple[Path, str], Box] = OrderedDict()


def box_of(path: Path) -> Box:
    """The box of an attack's file as it is now; those longest unused are ended."""
    key = path.resolve(), attack_sha(path) if path.is_file() else ""
    if key in _boxes and not _boxes[key].usable():
        dropped(_boxes[key])
    if key not in _boxes:
        while len(_boxes) >= MOST_BOXES:
            _boxes.popitem(last=False)[1].end()
        _boxes[key] = Box(path.resolve())
    _boxes.move_to_end(key)
    return _boxes[key]


def dropped(box: Box) -> None:
    """Forget a box that is of no more use."""
    for key, other in list(_boxes.items()):
        if other is box:
            del _boxes[key]
    box.end()


@atexit.register
def end_all() -> None:
    """End every box of this process."""
    while _boxes:
        _boxes.popitem()[1].end()


def ask(path: Path, task: Task) -> Message:
    """The answer to a question that is no attack. AttackError says what is wrong with the attack."""
    box = box_of(path)
    try:
        header, arrays = list(
            box.talk(task, Parcel(None), ASKING_SECONDS, lambda *_: (None, ("ValueError", "not now")))
        )[-1]
    except (BoxEnded, OutOfTime, WireError) as error:
        dropped(box)
        raise AttackError(f"{path}: {task.do}: {error}") from None
    if header["end"] == "fault" and "reason" in header:
        reason = plain(header["reason"])
        raise AttackError(reason.partition(": ")[2] if header.get("fault") else f"{path}: {task.do}: {reason}")
    return header, arrays


def _started(work: tuple[Any, ...]) -> Any:
    """A process that serves; a server that is just dying may still take the call, so it is asked again."""
    for pause in (0.1, 0.5, 2.0, None):
        process = _server().Process(target=inside.serve, args=work, daemon=True)
        try:
            with _without_main():
                process.start()
            return process
        except (ConnectionError, EOFError):
            if pause is None:
                raise
            time.sleep(pause)
    raise AssertionError


def _server() -> Any:
    """The context of a fork server of this process, started with torch imported and without the way to the data."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with _environment(), _without_main():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """What the server is started with: no way to the data, and one thread, since threads do not survive a fork."""
    before = dict(os.environ)
    for name in HIDDEN:
        os.environ.pop(name, None)
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """A new process would import the program that started this one; the box needs nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
