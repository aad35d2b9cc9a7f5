"""What lies among the committed results and belongs to nothing: no board reads it, so it can only mislead."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from leakboard.board.findings import Finding
from leakboard.config import SCALES, benchmark_names, paper_names, params
from leakboard.record.prices import PRICE
from leakboard.record.results import Results

VICTIMS = "victims"
ABOVE = ("README.md", *SCALES)  # in results/
OF_A_SCALE = (
    "papers", "leaderboard.md", "leaderboard.csv", "published.csv", "speed.csv", "growth.csv", "growth.png",
    "peers.csv", "dvc.yaml", "dvc.lock",
)  # fmt: skip
OF_A_RUN = ("trials.csv", "metrics.json", "timing.json", "curve.csv", "grid.png", "rounds.png")


def above_scales(top: Path) -> Iterator[Finding]:
    """What lies in `results/` and is no scale."""
    yield from _unknown(top, ABOVE)


def of_scale(results: Results) -> Iterator[Finding]:
    """What lies beside the papers of one scale, and which of them nobody has."""
    yield from _unknown(results.papers.parent, OF_A_SCALE)
    yield from _unknown(results.papers, (*paper_names(), VICTIMS), "no paper of baselines/")


def of_paper(results: Results, paper: str) -> Iterator[Finding]:
    """What lies among the results of a paper and is of no benchmark that it stands on, or no file of a stage."""
    runs = params(paper).boards_at(results.scale)
    named = f"no benchmark that `on:` in baselines/{paper}/params.yaml names"
    yield from _unknown(results.papers / paper, runs, named)
    for run in runs:
        yield from _unknown(results.folder(paper, run), OF_A_RUN)


def of_victims(results: Results) -> Iterator[Finding]:
    """What lies among the records of victims and is of no victim or evaluator that is shared by trials."""
    asked = [results.benchmark(name) for name in benchmark_names()]
    trained = {one.name for one in asked if one.network.weights != "fresh" or one.evaluator is not None}
    priced = {one.name for one in asked if one.price is not None}
    known = trained | priced
    yield from _unknown(
        results.papers / VICTIMS, known, "no benchmark with a victim or evaluator that is trained, or a price"
    )
    for name in sorted(known):
        folder = results.victim(name)
        weights = [path.stem for path in folder.glob("*.safetensors")]
        files = [f"{stem}{end}" for stem in weights for end in (".safetensors", ".json")]
        yield from _unknown(
            folder, (*(["metrics.json", *files] if name in trained else []), *[PRICE] * (name in priced))
        )


def _unknown(folder: Path, known: Collection[str], found: str = "nothing that Leakboard writes") -> Iterator[Finding]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name not in known:
            kind = "folder" if path.is_dir() else "file"
            mend = f"`git rm -r {path}`, or `rm -r {path}` where it was never committed"
            what, expected = f"the {kind} belongs to the results", "what results/README.md lists"
            yield Finding(path.as_posix(), what, found, expected, "warning", mend)
