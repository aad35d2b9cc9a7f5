"""`leakboard data`: what is here, where it comes from, whether it is what it should be."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from leakboard.console import cells, plainly, screen

app = typer.Typer(no_args_is_help=True, help="The data sets: what is here, where they come from.")


@app.command("list")
def data_list() -> None:
    """Every data set with its licence, and whether it is here."""
    with plainly():
        from leakboard.data.sources import listing

        table = Table("name", "images", "classes", "shape", "licence", "here")
        for row in listing():
            table.add_row(*cells(*(row[key] for key in ("name", "images", "classes", "shape", "licence", "state"))))
        screen.print(table)


@app.command("fetch")
def data_fetch(name: str) -> None:
    """Download a data set from its official source and verify it."""
    with plainly():
        from leakboard.data.sources import fetch

        fetch(name)
        screen.print(escape(f"{name} is here and verified"))


@app.command("verify")
def data_verify(name: str) -> None:
    """Compare the checksums of a data set's files; exit status 1 when one differs."""
    with plainly():
        from leakboard.data.sources import how_to_get, sources, verify

        table = Table("file", "expected", "found", "ok")
        rows = verify(name)
        for file, expected, found, fine in rows:
            table.add_row(*cells(file, expected[:16], found[:16], "yes" if fine else "no"))
        screen.print(table)
        if name in sources() and any(row[2] == "absent" for row in rows):
            screen.print(escape(f"{name} is not all here. {how_to_get(name)}"), soft_wrap=True)
        if not rows or not all(row[3] for row in rows):
            raise typer.Exit(1)
