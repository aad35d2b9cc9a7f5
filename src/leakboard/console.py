"""What all commands of the console share: its screen, plain errors, a bar of progress, and words that are options."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from leakboard.config import CONTROLS, SCALES, Scale, paper_names
from leakboard.config.files import checked_name
from leakboard.config.kinds import A_NAME, MOST, is_name
from leakboard.config.texts import bytes_of, there
from leakboard.errors import Fault, brief, one_line

if TYPE_CHECKING:
    from leakboard.record.results import Results

screen = Console(width=None if sys.stdout.isatty() else 140)
MOST_LETTERS = 6000  # of one message; a wrong name is answered by all right ones
MOST_WORKERS = 16 * (os.cpu_count() or 1)  # processes, each of which imports torch
TRIALS = re.compile(r"(?:([0-9]{1,12}):)?([0-9]{1,12})")
TRACEBACK = "--traceback"
DEVICES = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")


class Commands(TyperGroup):
    """All commands; `--traceback` is an option of them all and may stand anywhere."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = [word for word in args if word != TRACEBACK]
        return super().parse_args(ctx, [TRACEBACK, *rest] if len(rest) < len(args) else rest)


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Whatever goes wrong becomes one clear line and exit status 2; with `--traceback` a traceback stands above it."""
    with _ending():
        try:
            _check_environment()
            yield
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt as interrupt:
            screen.print("interrupted; every finished trial is kept, the same call goes on from there")
            raise typer.Exit(128 + (interrupt.args or (signal.SIGINT,))[0]) from None
        except BaseException as error:  # an attack may raise anything, and `sys.exit(0)` in it is no success
            if traced := _wants_traceback():
                traceback.print_exception(error)
            tell("error", _message(error, hint="" if traced else "; run again with --traceback"))
            raise typer.Exit(2) from None


def _check_environment() -> None:
    """Fault where LEAKBOARD_DATA is no path at all; a folder that is not here is none: boards are read without data."""
    text = os.environ.get("LEAKBOARD_DATA", "")
    try:
        place = Path(text).expanduser().resolve()
        wrong = "no folder" if place.exists() and not place.is_dir() else ""
    except (OSError, RuntimeError, ValueError) as error:
        wrong = str(error)
    if wrong:
        raise Fault(f"LEAKBOARD_DATA is {brief(text)}: found {wrong}, expected a folder") from None


def _wants_traceback() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("traceback"))


def _message(error: BaseException, hint: str) -> str:
    """What the reader is told: of a Fault and of a file what is wrong with it, of all else that it is our fault."""
    if isinstance(error, Fault):
        return str(error)
    if isinstance(error, SystemExit):
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{place.filename}:{place.lineno}: found SystemExit({error.code!r}), expected code that ends nothing"
    if isinstance(error, OSError) and error.errno and (file := error.filename2 or error.filename):
        return f"{file}: {error.strerror}"
    return f"{type(error).__name__}: {error} (internal{hint})"


def tell(word: str, message: str, style: str = "red") -> None:
    """One line: a coloured word and a message, of which nothing is taken for markup."""
    line = one_line(message)
    if len(line) > MOST_LETTERS:
        line = f"{line[: MOST_LETTERS // 2]} ... {line[-MOST_LETTERS // 2 :]}"
    screen.print(Text.assemble((word, style), " ", line), highlight=False, soft_wrap=True)


def cells(*values: object) -> tuple[Text, ...]:
    """Cells of a table, of which nothing is taken for markup."""
    return tuple(Text(one_line(str(value))) for value in values)


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """SIGTERM (a job queue, a shutdown) and SIGHUP (a closed terminal) end a command in the way that Ctrl-C does.

    A second signal within a second changes nothing: both are sent to whole groups of processes, often together. Once
    one came, a later one, at the exit, ends the process at once: all is saved by then.
    """
    ways = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    mine = [number for number, way in ways.items() if way in (signal.SIG_DFL, signal.default_int_handler)]
    came = -math.inf

    def end(number: int, frame: object) -> None:
        nonlocal came
        last, came = came, time.monotonic()
        if came - last > 1:
            raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():
        mine = []
    for number in mine:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL if math.isfinite(came) else ways[number])


def scale_of(text: str) -> Scale:
    if text not in SCALES:
        raise Fault(f"no scale {brief(text)}; there are: {', '.join(SCALES)}")
    return text  # type: ignore[return-value]


def trials_of(text: str | None) -> range | None:
    """`10` is the first ten trials, `50:100` the trials from 50 up to, not including, 100."""
    if text is None:
        return None
    found = TRIALS.fullmatch(text)
    chosen = range(int(found[1] or 0), int(found[2])) if found else range(0)
    if not chosen or chosen[-1] >= MOST:
        wanted = f"a number above 0 or FIRST:LAST with LAST > FIRST, at most {MOST:,}"
        raise Fault(f"--trials {brief(text)} names no trials; expected {wanted}")
    return chosen


def workers_of(text: str) -> int | Literal["ray"]:
    """A number of processes, 0 for none but this one, or the word `ray`."""
    if text == "ray":
        return "ray"
    if not re.fullmatch("[0-9]{1,6}", text) or int(text) > MOST_WORKERS:
        raise Fault(f"--workers {brief(text)}: expected a number from 0 to {MOST_WORKERS} on this machine, or ray")
    return int(text)


def device_of(text: str) -> str:
    if not DEVICES.fullmatch(text):
        raise Fault(f"no device {brief(text)}; there are: auto, cpu, cuda, cuda:0 and so on")
    return text


def named(paper: str | None, benchmark: str | None) -> None:
    """Fault where one of them is given and is no name, such as the empty word of a variable that is not set."""
    for text, what in ((paper, "a paper"), (benchmark, "a benchmark")):
        if text is not None:
            checked_name(text, what)


def out_of(text: str | None) -> Path | None:
    """The folder of `--out`; not the empty word, which would be the working folder."""
    if text is None:
        return None
    if not text or "\0" in text:
        raise Fault(f"--out {brief(text)}: expected a folder")
    return Path(text)


def results_in(scale: Scale, out: str | None) -> Results:
    """The tree of results that a call reads; Fault where another one than the checkout's is named and holds none."""
    from leakboard.record.results import Results

    results = Results.at(scale, out_of(out))
    if out is not None and not results.papers.is_dir():
        raise Fault(f"--out {out}: found no {scale}/papers in it, expected a tree of results, as `reproduce` writes it")
    return results


def tree_of(folder: str) -> Path:
    """A tree of results; Fault where the folder is none."""
    if not folder or not any((Path(folder) / scale / "papers").is_dir() for scale in SCALES):
        raise Fault(f"{folder!r}: found no results of any paper in it, expected what `--out` wrote")
    return Path(folder)


def row_name(attack: str) -> str:
    """What the row of a paper or a file is called; Fault where the file's name cannot be that of a row."""
    if attack in paper_names():
        return attack
    name = Path(attack).stem
    if not is_name(name) or name == CONTROLS:
        raise Fault(
            f"{attack}: the row is called as the file is, found {brief(name)}, expected {A_NAME}; rename the file"
        )
    if there(Path(attack)):
        bytes_of(Path(attack), Fault)
    return name


@contextlib.contextmanager
def progress(counted: str = "trials") -> Iterator[Any]:
    """A bar over the stages under way; yields what `stage.reproduce` reports to. counted: what is, unless told."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=screen, transient=not screen.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def report(name: str, done: int, total: int, why: str = "", what: str = counted) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)
            if done == total:
                bars.remove_task(tasks[name])
                if why:
                    tell("failed", f"{name}: all {total} {what}, {why}")
                else:
                    tell("done", f"{name}: {total} {what}", "green")

        yield report


def print_frame(frame: Any, title: str) -> None:
    table = Table(title=escape(one_line(title)), box=None, pad_edge=False, title_justify="left")
    for name in frame.columns:
        table.add_column(escape(one_line(str(name))), overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*cells(*("" if value is None or value != value else value for value in row)))
    screen.print(table)
