"""Where results lie, of one scale: the checkout's own, or a tree that was written elsewhere (`--out`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from leakboard import config
from leakboard.config import Benchmark, Scale
from leakboard.record import trial_lines


@dataclass(frozen=True)
class Results:
    """top: the folder that holds `<scale>/`. Every path of a tree of results is spelled here and nowhere else."""

    scale: Scale
    top: Path

    @classmethod
    def at(cls, scale: Scale, top: Path | None = None) -> Results:
        """Those below `top`; without it the committed ones."""
        return cls(scale, config.root() / "results" if top is None else top.resolve())

    @property
    def committed(self) -> bool:
        return self.top == config.root() / "results"

    @property
    def papers(self) -> Path:
        return self.top / self.scale / "papers"

    def folder(self, paper: str, run: str) -> Path:
        """What one paper left on one benchmark."""
        return self.papers / paper / run

    def victim(self, run: str) -> Path:
        """The record of how a benchmark's victim was trained."""
        return self.folder("victims", run)

    def file(self, name: str) -> Path:
        """A file about all papers: published.csv, leaderboard.csv, leaderboard.md."""
        return self.top / self.scale / name

    @property
    def page(self) -> Path:
        """The report; of the committed results outside of what is committed."""
        above = config.root() / "build" if self.committed else self.top
        return above / "report" / f"{self.scale}.html"

    def reconstructions(self, paper: str, run: str) -> Path:
        """Images that attacks handed in, never committed."""
        above = config.root() / "build" if self.committed else self.top
        return above / "reconstructions" / self.scale / paper / run

    def benchmark(self, run: str) -> Benchmark:
        return config.benchmark(run, self.scale)

    def lines(self, paper: str, run: str) -> pd.DataFrame:
        """All trial lines of one paper on one benchmark."""
        return trial_lines.read(self.folder(paper, run) / "trials.csv")

    def current_lines(self, paper: str, run: str) -> pd.DataFrame:
        """The official trials under the present keys; none where the paper does not stand on the benchmark."""
        lines = self.lines(paper, run)
        question = self.benchmark(run)
        official = lines["trial"] < question.trials
        keys = trial_lines.present_keys(paper, question)
        return lines[official & trial_lines.current(lines, keys)].reset_index(drop=True)
