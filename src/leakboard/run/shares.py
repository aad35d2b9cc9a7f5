"""Shares of a stage that several machines ran, brought together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from leakboard.config import SCALES, ConfigError
from leakboard.record import curve_lines, saving, trial_lines
from leakboard.record.results import Results
from leakboard.run.stage import Stage, derive, stages


def merge(folders: Sequence[Path], top: Path | None = None) -> list[str]:
    """Bring trees of results, as `--out` wrote them, into that at `top` (the committed one); what was merged, by name.

    Lines for the same place are taken from the last folder; a line of another key replaces what it makes stale, as
    when it is run here. Everything derived is derived again. ConfigError where a folder holds no results.
    """
    done = []
    for scale in SCALES:
        into, shares = Results.at(scale, top), [Results.at(scale, folder) for folder in folders]
        for stage in stages(into, None, None):
            everywhere = [replace(stage, results=share) for share in shares]
            parts = [share for share in everywhere if share.place.file.exists()]
            for share in parts:
                _take(share, stage)
            if parts:
                derive(stage)
                done.append(f"{scale} {stage.paper} {stage.benchmark.name}")
    if not done:
        raise ConfigError(f"no results of any paper in {', '.join(map(str, folders))}; expected what `--out` wrote")
    return done


def _take(share: Stage, into: Stage) -> None:
    """One paper's lines, curves and reconstructions on one board."""
    here, there = into.place, share.place
    lines = trial_lines.read(there.file)  # first: whatever belongs to these lines was there before them
    with here.alone():
        for source in sorted(there.reconstructions.glob("*.npz")):
            saving.write_bytes(here.reconstructions / source.name, source.read_bytes())
        with saving.uncut():
            here.write(trial_lines.read(here.file), lines, curve_lines.read(there.curves))
