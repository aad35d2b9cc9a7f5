"""Shares of a stage that several machines ran, brought together."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from leakboard.config import SCALES, ConfigError
from leakboard.record import trial_lines
from leakboard.record.results import Results
from leakboard.run import kept
from leakboard.run.stage import derive, stages


def merge(folders: Sequence[Path], top: Path | None = None) -> list[str]:
    """Bring trees of results, as `--out` wrote them, into that at `top` (the committed one); what was merged, by name.

    Lines for the same place are taken from the last folder; a line of another key replaces what it makes stale, as
    when it is run here. Everything derived is derived again. ConfigError where a folder holds no results.
    """
    done = []
    for scale in SCALES:
        into, shares = Results.at(scale, top), [Results.at(scale, folder) for folder in folders]
        for stage in stages(into, None, None):
            place = stage.paper, stage.benchmark.name
            there = [share for share in shares if (share.folder(*place) / "trials.csv").exists()]
            for share in there:
                _take(share, into, *place)
            if there:
                derive(stage)
                done.append(f"{scale} {' '.join(place)}")
    if not done:
        raise ConfigError(f"no results of any paper in {', '.join(map(str, folders))}; expected what `--out` wrote")
    return done


def _take(share: Results, into: Results, paper: str, board: str) -> None:
    """One paper's lines, curves and reconstructions on one board."""
    here, there = into.folder(paper, board), share.folder(paper, board)
    curves = kept.merged_curves(kept.read_curves(here / "curve.csv"), kept.read_curves(there / "curve.csv"))
    if len(curves):
        kept.write_curves(here / "curve.csv", curves)
    trial_lines.write(here / "trials.csv", trial_lines.merge(into.lines(paper, board), share.lines(paper, board)))
    pictures = share.reconstructions(paper, board)
    if pictures.is_dir():
        shutil.copytree(pictures, into.reconstructions(paper, board), dirs_exist_ok=True)
