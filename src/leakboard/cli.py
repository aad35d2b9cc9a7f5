"""The console: list, run, reproduce, check, report, data. Heavy imports wait until a command needs them.

Exit status: 0 done, 1 a published or committed number does not hold, 2 the call or a file is wrong, 130 interrupted.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from leakboard import config
from leakboard.config import SCALES
from leakboard.console import plainly, print_frame, progress, scale_of, screen, trials_of, workers_of

if TYPE_CHECKING:
    from leakboard.record.results import Results

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Reproduce, compare and check data reconstruction.")
data_app = typer.Typer(no_args_is_help=True, help="The data sets: what is here, where they come from.")
app.add_typer(data_app, name="data")
ScaleOption = Annotated[str, typer.Option(help="quick (bundled data, minutes) or paper (the published protocol).")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
WorkersOption = Annotated[
    str, typer.Option(help="Worker processes, one thread each; 0 runs in this process, `ray` on a Ray cluster.")
]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Ignore the trials that are there already.")]
OutOption = Annotated[Path | None, typer.Option(help="Write the tree of results here instead of results/.")]
WORKERS = str(os.cpu_count() or 1)


@app.command("list")
def list_() -> None:
    """The papers, their variants, and the benchmarks."""
    with plainly():
        papers = Table("paper", "title", "variants", "benchmarks", title="baselines/")
        for name in config.paper_names():
            params = config.params(name)
            papers.add_row(name, params.title, ", ".join(params.variants), str(len(params.on)))
        questions = Table("benchmark", "question", "sees", "trials quick / paper", title="benchmarks/")
        for name in config.benchmark_names():
            quick, paper = (config.benchmark(name, scale) for scale in SCALES)
            questions.add_row(name, paper.question, paper.threat.sees, f"{quick.trials} / {paper.trials}")
        screen.print(papers, questions)


@app.command()
def run(
    attack: Annotated[str, typer.Argument(help="A paper in baselines/, or a path to a file with an attack.")],
    benchmark: Annotated[str, typer.Argument(help="A benchmark in benchmarks/.")],
    scale: ScaleOption = "quick",
    trials: Annotated[str | None, typer.Option(help="N or FIRST:LAST.")] = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = WORKERS,
) -> None:
    """Run an attack on a benchmark and show its row between its rivals. Nothing is registered or committed."""
    with plainly():
        from leakboard.run import tryout

        asked = config.benchmark(benchmark, scale_of(scale))
        with progress() as report:
            board, pictures = tryout.board_with(attack, asked, trials_of(trials), device, workers_of(workers), report)
        print_frame(board, title=f"{benchmark} ({scale})")
        screen.print(f"pictures: {pictures}", soft_wrap=True)


@app.command()
def reproduce(
    paper: Annotated[str | None, typer.Argument(help="A paper in baselines/ or `victims`; all when absent.")] = None,
    benchmark: Annotated[str | None, typer.Argument(help="One of its benchmarks; all when absent.")] = None,
    scale: ScaleOption = "quick",
    trials: Annotated[str | None, typer.Option(help="N or FIRST:LAST: only these trials.")] = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = WORKERS,
    fresh: FreshOption = False,
    out: OutOption = None,
) -> None:
    """Run what the stores lack; without arguments everything, with verdicts, boards and the report page at the end."""
    with plainly():
        from leakboard.record.results import Results
        from leakboard.run import stage, trained

        results = Results.at(scale_of(scale), out)
        if paper == "victims":
            trained.record_victims(results, benchmark)
            return
        stages = stage.stages(results, paper, benchmark)
        with progress() as report:
            ran = stage.reproduce(
                stages,
                trials=trials_of(trials),
                device=device,
                workers=workers_of(workers),
                fresh=fresh,
                report=report,
            )
        screen.print(f"{ran} trials run, {len(stages)} stages up to date in {results.top}", soft_wrap=True)
        if paper is None:
            conclude(results)


def conclude(results: Results) -> None:
    """Verdicts, boards and report of a whole reproduction; exit status 1 when a gating number is missed."""
    from leakboard.board import replication, report, verdict

    page, here = report.write_all(results), verdict.verdicts(results)
    committed = replication.read_verdicts(results.at(results.scale))
    print_frame(replication.comparison(here, committed), title="published / committed / here")
    screen.print(f"report: {page}", soft_wrap=True)
    if ((here["verdict"] == "missed") & here["gates"]).any():
        raise typer.Exit(1)


@app.command()
def check() -> None:
    """Re-derive every committed number; exit status 1 on a miss or on tampering."""
    with plainly():
        from leakboard.board import check as checks
        from leakboard.board import verdict
        from leakboard.record.results import Results

        for scale in SCALES:
            table = verdict.verdicts(Results.at(scale))
            counts = ", ".join(f"{n} {name}" for name, n in table["verdict"].value_counts().items())
            screen.print(f"{scale}: {counts or 'no published number'}")
        findings = checks.check(config.root())
        if findings:
            table = Table("severity", "file", "what", "found", "expected")
            for row in checks.rows(findings):
                table.add_row(*row)
            screen.print(table)
        if checks.failed(findings):
            raise typer.Exit(1)
        screen.print("every committed number follows from its trials")


@app.command()
def report(scale: ScaleOption = "quick", out: OutOption = None) -> None:
    """Write verdicts, boards and one self-contained page from the results that are there; runs nothing."""
    with plainly():
        from leakboard.board import replication
        from leakboard.board import report as pages
        from leakboard.record.results import Results

        results = Results.at(scale_of(scale), out)
        page = pages.write_all(results)
        if scale == "paper" and results.committed:
            replication.update_readme(config.root() / "README.md", results)
        screen.print(f"report: {page}", soft_wrap=True)


@app.command()
def rescore(
    paper: Annotated[str | None, typer.Argument(help="A paper in baselines/; all when absent.")] = None,
    benchmark: Annotated[str | None, typer.Argument(help="One of its benchmarks; all when absent.")] = None,
    scale: ScaleOption = "quick",
    out: OutOption = None,
) -> None:
    """Judge again what attacks handed in, where build/ still holds it: a new metric needs no new attack."""
    with plainly():
        from leakboard.record.results import Results
        from leakboard.run import rescore as scoring
        from leakboard.run import stage

        judged = absent = 0
        for one in stage.stages(Results.at(scale_of(scale), out), paper, benchmark):
            counts = scoring.rescore(one)
            judged, absent = judged + counts[0], absent + counts[1]
        screen.print(f"{judged} trials judged again; of {absent} no reconstruction is here, they stay as they are")


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(help="Trees of results, as --out wrote them.")],
    out: OutOption = None,
) -> None:
    """Bring together what several machines ran, and derive aggregates and pictures again."""
    with plainly():
        from leakboard.run import shares

        for name in shares.merge(folders, out):
            screen.print(f"merged {name}", highlight=False)


@data_app.command("list")
def data_list() -> None:
    """Every data set with its licence, and whether it is here."""
    with plainly():
        from leakboard.data.sources import listing

        table = Table("name", "images", "classes", "shape", "licence", "here")
        for row in listing():
            table.add_row(*(row[key] for key in ("name", "images", "classes", "shape", "licence", "state")))
        screen.print(table)


@data_app.command("fetch")
def data_fetch(name: str) -> None:
    """Download a data set from its official source and verify it."""
    with plainly():
        from leakboard.data.sources import fetch

        fetch(name)
        screen.print(f"{name} is here and verified")


@data_app.command("verify")
def data_verify(name: str) -> None:
    """Compare the checksums of a data set's files; exit status 1 when one differs."""
    with plainly():
        from leakboard.data.sources import verify

        table = Table("file", "expected", "found", "ok")
        rows = verify(name)
        for file, expected, found, fine in rows:
            table.add_row(str(file), expected[:16], found[:16], "yes" if fine else "no")
        screen.print(table)
        if not rows or not all(row[3] for row in rows):
            raise typer.Exit(1)
