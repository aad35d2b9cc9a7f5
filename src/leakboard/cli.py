"""The console: list, run, reproduce, check, report, federate, data. Heavy imports wait until a command needs them.

Exit status: 0 done; 1 a published or committed number does not hold, or every trial of a row failed; 2 the call or a
file is wrong (or Leakboard is); 129, 130, 143 ended by a signal (hangup, Ctrl-C, termination).
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from leakboard import config
from leakboard.config import SCALES
from leakboard.config.texts import refuse_devices, text_of
from leakboard.console import (
    TRACEBACK,
    Commands,
    cells,
    device_of,
    named,
    out_of,
    plainly,
    print_frame,
    progress,
    results_in,
    row_name,
    scale_of,
    screen,
    tree_of,
    trials_of,
    workers_of,
)
from leakboard.errors import Fault
from leakboard.run import data, federate

if TYPE_CHECKING:
    from leakboard.record.results import Results

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    help="Reproduce, compare and check data reconstruction.",
)
app.add_typer(data.app, name="data")
app.command()(federate.federate)
ScaleOption = Annotated[str, typer.Option(help="quick (bundled data, minutes) or paper (the published protocol).")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
WorkersOption = Annotated[
    str, typer.Option(help="Worker processes, one thread each; 0 runs in this process, `ray` on a Ray cluster.")
]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Ignore the trials that are there already.")]
OutOption = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="Write the tree of results here instead of results/.")
]
CONTENT = ("benchmarks", "baselines", "results")
WORKERS = str(os.cpu_count() or 1)


@app.callback()
def main(
    traceback: Annotated[bool, typer.Option(TRACEBACK, help="Show where in the code an error came from, too.")] = False,
) -> None:
    """Reproduce, compare and check data reconstruction."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what a terminal cannot show is an escape and no error
            stream.reconfigure(errors="backslashreplace")


@app.command("list")
def list_() -> None:
    """The papers, their variants, and the benchmarks."""
    with plainly():
        papers = Table("paper", "title", "variants", "boards quick / paper", title="baselines/")
        for name, params in ((name, config.params(name)) for name in config.paper_names()):
            boards = f"{len(params.boards)} / {len(params.on)}"
            papers.add_row(*cells(name, params.title, ", ".join(params.variants), boards))
        questions = Table("benchmark", "question", "sees", "trials quick / paper", title="benchmarks/")
        for name in config.benchmark_names():
            quick, paper = (config.benchmark(name, scale) for scale in SCALES)
            questions.add_row(*cells(name, paper.question, paper.threat.sees, f"{quick.trials} / {paper.trials}"))
        screen.print(papers, questions)


@app.command()
def run(
    attack: Annotated[str, typer.Argument(help="A paper in baselines/, or a path to a file with an attack.")],
    benchmark: Annotated[str, typer.Argument(help="A benchmark in benchmarks/.")],
    scale: ScaleOption = "quick",
    trials: Annotated[str | None, typer.Option(help="N or FIRST:LAST.")] = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = WORKERS,
    victims: Annotated[str, typer.Option(help="official, or development: images that no board reports.")] = "official",
    messages: Annotated[
        str | None, typer.Option(metavar="LOG", help="Attack what an observer of a real federation saw instead.")
    ] = None,
) -> None:
    """Run an attack on a benchmark and show its row between its rivals. Nothing is registered or committed."""
    with plainly():
        asked, chosen = config.benchmark(benchmark, scale_of(scale)), trials_of(trials)
        spread, place = workers_of(workers), device_of(device)
        row_name(attack)
        from leakboard.run import development, logged

        tried = development.trier(victims) if messages is None else logged.reader(messages, victims)
        with progress() as report:
            board, pictures, why = tried(attack, asked, chosen, place, spread, report)
        whose = f"{victims} victims" if messages is None else f"messages of {messages}"
        print_frame(board, title=f"{benchmark} ({scale}), {whose}")
        screen.print(escape(f"pictures: {pictures}"), soft_wrap=True)
        refuse_failed(why)


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
        named(paper, benchmark)
        chosen, spread, place = trials_of(trials), workers_of(workers), device_of(device)
        from leakboard.record.results import Results
        from leakboard.run import stage, trained

        results = Results.at(scale_of(scale), out_of(out))
        if paper == "victims":
            trained.record_victims(results, benchmark)
            return
        stages = stage.stages(results, paper, benchmark)
        if paper and not stages:
            raise Fault(f"baselines/{paper}/params.yaml: found no benchmark in `on`, expected one to run on")
        with progress() as report:
            ran = stage.reproduce(stages, trials=chosen, device=place, workers=spread, fresh=fresh, report=report)
        done = f"{ran} trials run, {len(stages)} stages up to date in {results.top}"
        screen.print(escape(done), soft_wrap=True)
        if paper is None:
            conclude(results)
        else:
            refuse_failed(stage.failures(stages, place))


def conclude(results: Results) -> None:
    """Verdicts, boards and report of a whole reproduction; exit status 1 when a gating number is missed."""
    from leakboard.board import replication, report, verdict

    page, here = report.write_all(results), verdict.verdicts(results)
    committed = report.stated_verdicts(results.at(results.scale))
    print_frame(replication.comparison(here, committed), title="published / committed / here")
    screen.print(escape(f"report: {page}"), soft_wrap=True)
    if verdict.red(here).any():
        raise typer.Exit(1)


def refuse_failed(why: list[str]) -> None:
    """Exit status 1 with a sentence for every row of which no trial succeeded."""
    for sentence in why:
        screen.print(escape(sentence), soft_wrap=True, highlight=False)
    if why:
        raise typer.Exit(1)


@app.command()
def check(
    rerun: Annotated[int, typer.Option(metavar="K", min=0, help="Attack K random committed trials again.")] = 0,
    seed: Annotated[int | None, typer.Option(help="Repeat the draw of an earlier --rerun.")] = None,
    workers: WorkersOption = WORKERS,
) -> None:
    """Re-derive every committed number; exit status 1 on a miss or on tampering."""
    with plainly():
        from leakboard.board import check as checks

        refuse_devices((config.root() / name for name in CONTENT), config.ConfigError)
        counts, findings = checks.checked(config.root())
        for count in counts:
            screen.print(escape(count))
        for sentence in checks.sentences(findings):
            screen.print(escape(sentence), soft_wrap=True, highlight=False)
        differs = bool(rerun) and attacked_again(rerun, seed, workers)
        if checks.failed(findings) or differs:
            raise typer.Exit(1)
        screen.print("every committed number follows from its trials")


def attacked_again(count: int, seed: int | None, workers: str) -> bool:
    """Whether one of `count` committed trials that are attacked again gives another number."""
    import random

    from leakboard.record.results import Results
    from leakboard.run import audit

    seed, spread = random.randrange(10**6) if seed is None else seed, workers_of(workers)
    told = f"to be attacked again, drawn by --seed {seed}"
    with progress() as report:
        every = [Results.at(scale) for scale in SCALES]
        found = audit.rerun(every, count, seed, spread, report, lambda drawn: print_frame(drawn, told))
    print_frame(audit.table(found), "as committed, and as attacked again")
    return audit.differ(found)


@app.command()
def report(scale: ScaleOption = "quick", out: OutOption = None) -> None:
    """Write verdicts, boards and one self-contained page from the results that are there; runs nothing."""
    with plainly():
        from leakboard.board import replication
        from leakboard.board import report as pages

        results = results_in(scale_of(scale), out)
        readme = config.root() / "README.md" if scale == "paper" and results.committed else None
        marks = (replication.BEGIN, replication.END)
        if readme and (lacking := [mark for mark in marks if mark not in text_of(readme, Fault)]):
            raise Fault(f"{readme}: found no {' and no '.join(lacking)}, expected the marks around its table")
        page = pages.write_all(results)
        if readme:
            replication.update_readme(readme, results)
        screen.print(escape(f"report: {page}"), soft_wrap=True)


@app.command()
def rescore(
    paper: Annotated[str | None, typer.Argument(help="A paper in baselines/; all when absent.")] = None,
    benchmark: Annotated[str | None, typer.Argument(help="One of its benchmarks; all when absent.")] = None,
    scale: ScaleOption = "quick",
    out: OutOption = None,
) -> None:
    """Judge again what attacks handed in, where build/ still holds it: a new metric needs no new attack."""
    with plainly():
        named(paper, benchmark)
        results = results_in(scale_of(scale), out)
        from leakboard.run import rescore as scoring
        from leakboard.run import stage

        judged = absent = 0
        for one in stage.stages(results, paper, benchmark):
            counts = scoring.rescore(one)
            judged, absent = judged + counts[0], absent + counts[1]
        screen.print(f"{judged} trials judged again; of {absent} no reconstruction is here, they stay as they are")


@app.command()
def merge(
    folders: Annotated[list[str], typer.Argument(help="Trees of results, as --out wrote them.")],
    out: OutOption = None,
) -> None:
    """Bring together what several machines ran, and derive aggregates and pictures again."""
    with plainly():
        trees, into = [tree_of(folder) for folder in folders], out_of(out)
        from leakboard.run import shares

        for name in shares.merge(trees, into):
            screen.print(f"merged {name}", highlight=False)
