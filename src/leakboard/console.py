"""What all commands of the console share: its screen, plain errors, a bar of progress, and words that are options."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from leakboard.config import SCALES, Scale
from leakboard.errors import Fault

screen = Console(width=None if sys.stdout.isatty() else 140)


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Errors of the reader's making become one clear message instead of a traceback."""
    try:
        yield
    except Fault as error:
        screen.print(f"[red]error[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        screen.print("interrupted; every finished trial is kept, the same call goes on from there")
        raise typer.Exit(130) from None


def scale_of(text: str) -> Scale:
    if text not in SCALES:
        raise Fault(f"no scale {text!r}; there are: {', '.join(SCALES)}")
    return text  # type: ignore[return-value]


def trials_of(text: str | None) -> range | None:
    """`10` is the first ten trials, `50:100` the trials from 50 up to, not including, 100."""
    if text is None:
        return None
    first, _, last = text.rpartition(":")
    try:
        chosen = range(int(first or 0), int(last))
    except ValueError:
        raise Fault(f"--trials {text!r}: expected a number or FIRST:LAST") from None
    if not chosen or chosen.start < 0:
        raise Fault(f"--trials {text!r} names no trial; expected a number above 0 or FIRST:LAST with LAST > FIRST")
    return chosen


def workers_of(text: str) -> int | Literal["ray"]:
    """A number of processes, 0 for none but this one, or the word `ray`."""
    if text == "ray":
        return "ray"
    if not text.isdecimal():
        raise Fault(f"--workers {text!r}: expected a number from 0 up, or ray")
    return int(text)


@contextlib.contextmanager
def progress() -> Iterator[Any]:
    """A bar over the stages under way; yields the function that `stage.reproduce` reports to."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=screen, transient=not screen.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)
            if done == total:
                bars.remove_task(tasks[name])
                bars.console.print(f"[green]done[/green] {name}: {total} trials", highlight=False)

        yield report


def print_frame(frame: Any, title: str) -> None:
    table = Table(title=title, box=None, pad_edge=False, title_justify="left")
    for name in frame.columns:
        table.add_column(str(name), overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*("" if value is None or value != value else str(value) for value in row))
    screen.print(table)
