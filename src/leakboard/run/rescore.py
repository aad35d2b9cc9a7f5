"""A new metric without a new attack: reconstructions that lie in build/ are judged again, and their lines renewed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from leakboard.attack.untouched import sha_of
from leakboard.metrics import METRICS
from leakboard.record import saving, trial_lines
from leakboard.run import kept
from leakboard.run.judgement import judged
from leakboard.run.stage import Stage, derive
from leakboard.victim.secrets import secret

JUDGED = tuple(name for name, metric in METRICS.items() if metric.truth in ("images", "labels", "classes"))
Name = tuple[Any, ...]


def rescore(stage: Stage) -> tuple[int, int]:
    """(lines judged again, current lines whose reconstruction is not here). Costs and curves stay as they are.

    Only what the line itself names by its hash is judged: a reconstruction of another run is not here.
    """
    lines = trial_lines.read(stage.place.file)
    current = trial_lines.current(lines, trial_lines.present_keys(stage.paper, stage.benchmark))
    ran = lines[current & (lines["status"] != "skipped")]
    renewed = {_name(line): scores for _, line in ran.iterrows() if (scores := _scores(stage, line)) is not None}
    if renewed:
        _renew(stage, renewed)
        derive(stage)
    return len(renewed), len(ran) - len(renewed)


def _renew(stage: Stage, renewed: Mapping[Name, Mapping[str, Any]]) -> None:
    """Judging takes its time: the lines that lie there by now get the scores that are theirs."""
    with saving.uncut(), stage.place.alone():
        lines = trial_lines.read(stage.place.file)
        names = {index: _name(line) for index, line in lines.iterrows()}
        judged_again = pd.DataFrame.from_dict(
            {index: renewed[name] for index, name in names.items() if name in renewed}, orient="index"
        )
        for metric in judged_again:
            lines.loc[judged_again.index, metric] = judged_again[metric]
        trial_lines.write(stage.place.file, lines)


def _name(line: pd.Series) -> Name:
    """What a line is about, and what was handed in."""
    return tuple(line[[*trial_lines.IDENTITY, "reconstruction_sha"]])


def _scores(stage: Stage, line: pd.Series) -> dict[str, Any] | None:
    got = kept.kept(stage.reconstructions, line["variant"], int(line["trial"]))
    if got is None or sha_of([got.images]) != line["reconstruction_sha"]:
        return None
    trial = int(line["trial"])
    scores = judged(stage.benchmark, trial, secret(stage.benchmark, trial), got).scores
    return {name: trial_lines.cell(name, value) for name, value in scores.items()}
