"""What is kept of trials: lines and quality curves (committed), reconstructions (not), and the grid of them.

Several runs may save into one place at once, and any of them may be killed at any moment. So every save is alone in it,
starts from what lies there now, and writes the lines last: a trial without its line is run again.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from leakboard.board import figures
from leakboard.record import curve_lines, saving, trial_lines
from leakboard.record.curve_lines import read as read_curves
from leakboard.threat import Reconstruction

if TYPE_CHECKING:
    from leakboard.run.trial import Outcome

GRID = 8  # images shown per variant
PLACE = ["variant", "trial", "device_kind"]
SAME = (*trial_lines.PLACE, *trial_lines.KEY)  # two lines alike in these are of the same trial, run twice
# Truth and reconstruction of one trial, each (B, C, H, W). Of a class the truth is its mean image, and a third array
# holds the victim nearest to each reconstruction.
Pictures = tuple[np.ndarray, ...]
NEAREST = "nearest victim"
Frames = tuple[np.ndarray, np.ndarray]  # steps (S,) and the first image at each (S, C, H, W)
Gallery = dict[str, dict[int, Pictures]]  # variant -> trial -> pictures


@dataclass(frozen=True)
class Place:
    """Where the trials of one attack on one benchmark are kept. folder: of lines, curves and the grid of pictures."""

    folder: Path
    reconstructions: Path

    @property
    def file(self) -> Path:
        """The lines."""
        return self.folder / "trials.csv"

    @property
    def curves(self) -> Path:
        return self.folder / "curve.csv"

    def alone(self) -> AbstractContextManager[None]:
        """No other process saves here meanwhile. The lock lies beside the reconstructions, never among the results."""
        return saving.alone(self.reconstructions.with_name(f"{self.reconstructions.name}.lock"))

    def prepare(self) -> None:
        """Before a run: what a killed one left half written goes; SaveError where nothing can be saved."""
        with self.alone():
            saving.prepare(self.folder)
            saving.prepare(self.reconstructions)

    def save(self, outcomes: Sequence[Outcome], outdated: pd.DataFrame, shown: Collection[int] = range(GRID)) -> None:
        """Take these trials in. A trial that another run has saved here under the same key stays as it is.

        outdated: lines that go, if they are still there, with their curves. shown: trials whose pictures are kept.
        """
        with saving.uncut(), self.alone():
            there = _without(trial_lines.read(self.file), outdated, outdated.columns)
            lines = trial_lines.frame([outcome.line for outcome in outcomes])
            new = _outside(lines, there, SAME)
            chosen = [outcome for outcome, is_new in zip(outcomes, new, strict=True) if is_new]
            for one in chosen:
                pictures = one.pictures if one.line["trial"] in shown else None
                frames = one.frames if one.line["trial"] in shown else None
                keep(self.reconstructions, one.line["variant"], one.line["trial"], one.got, pictures, frames)
            self.write(there, lines[new], curve_rows(one.curve for one in chosen))
            if len(outdated):
                orphans = outdated[_outside(outdated, trial_lines.read(self.file), PLACE)]
                write_curves(self.curves, _without(read_curves(self.curves), orphans, PLACE))

    def write(self, old: pd.DataFrame, new: pd.DataFrame, curves: pd.DataFrame) -> None:
        """New lines, and those of `curves` that are theirs, beside the old lines and the curves that lie here.

        For who is alone here. The lines come last: a kill before leaves trials that run again, one after costs nothing.
        """
        older, theirs = _without(read_curves(self.curves), new, PLACE), curves[~_outside(curves, new, PLACE)]
        write_curves(self.curves, merged_curves(older, theirs))
        trial_lines.write(self.file, trial_lines.merge(old, new))


def _without(rows: pd.DataFrame, gone: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    return rows[_outside(rows, gone, names)] if len(gone) else rows


def _outside(rows: pd.DataFrame, others: pd.DataFrame, names: Iterable[str]) -> np.ndarray:
    """(len(rows),) truth values: which rows differ from all others in what these columns say."""
    if not len(others):
        return np.ones(len(rows), dtype=bool)
    texts = (one[list(names)].astype(str).fillna("") for one in (rows, others))
    listed, there = (one.itertuples(index=False, name=None) for one in texts)
    taken = set(there)
    return np.array([row not in taken for row in listed], dtype=bool)


def write_curves(path: Path, curves: pd.DataFrame) -> None:
    saving.write_text(path, curves.to_csv(index=False, float_format="%.6g"))


def merged_curves(curves: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """The rows of a trial replace that trial's older ones."""
    if new.empty:
        return curves
    if len(curves):
        new = pd.concat([_without(curves, new, PLACE), new], ignore_index=True)
    return new.sort_values([*PLACE, "step"], kind="stable", ignore_index=True)


def curve_rows(rows: Iterable[Sequence[Mapping]]) -> pd.DataFrame:
    """What trials have shown, as lines; of a step that was shown twice the last."""
    lines = pd.DataFrame([row for one in rows for row in one], columns=list(curve_lines.COLUMNS))
    return lines.drop_duplicates(list(curve_lines.PLACE), keep="last", ignore_index=True)


def keep(
    folder: Path,
    variant: str,
    trial: int,
    got: Reconstruction | None,
    pictures: Pictures | None,
    frames: Frames | None = None,
) -> None:
    """Keep what was handed in, and the pictures if there are, so that nothing need be attacked again to be seen or to
    be scored by another metric.
    """
    if got is None:
        return
    arrays = {"images": got.images.numpy()}
    if got.labels is not None:
        arrays["labels"] = got.labels.numpy()
    if pictures is not None:
        arrays |= dict(zip(("true", "shown", "nearest"), pictures, strict=False))
    if frames is not None:
        arrays |= dict(zip(("steps", "frames"), frames, strict=True))
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    saving.write_bytes(folder / f"{variant}-{trial}.npz", content.getvalue())


def kept(folder: Path, variant: str, trial: int) -> Reconstruction | None:
    """What one trial handed in, where it was kept."""
    arrays = _arrays(folder, variant, trial)
    if not arrays:
        return None
    labels = torch.from_numpy(arrays["labels"]) if "labels" in arrays else None
    return Reconstruction(torch.from_numpy(arrays["images"]), labels)


def _arrays(folder: Path, variant: str, trial: int) -> dict[str, np.ndarray]:
    """All that was kept of a trial, by name; nothing where it was not."""
    path = folder / f"{variant}-{trial}.npz"
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def gallery(folder: Path, variants: Iterable[str], shown: Iterable[int] = range(GRID)) -> Gallery:
    """The pictures that are here of these trials, in the order of the variants."""
    found: Gallery = {name: {} for name in variants}
    for name, trials in found.items():
        for trial in shown:
            arrays = _arrays(folder, name, trial)
            if "true" in arrays:
                trials[trial] = tuple(arrays[key] for key in ("true", "shown", "nearest") if key in arrays)
    return {name: trials for name, trials in found.items() if trials}


def draw_lapse(path: Path, folder: Path, variant: str, shown: Iterable[int] = range(GRID)) -> None:
    """What a row had at some of its steps, one line a trial; nothing where no frames were kept."""
    there = {f"trial {trial}": _arrays(folder, variant, trial) for trial in shown}
    lines = {name: arrays for name, arrays in there.items() if "frames" in arrays}
    if lines:
        steps = max((arrays["steps"] for arrays in lines.values()), key=len)
        figures.lapse(path, {name: arrays["frames"] for name, arrays in lines.items()}, [str(step) for step in steps])


def draw_grid(path: Path, pictures: Gallery, beside: Gallery | None = None) -> None:
    """Truth above the reconstructions of every variant, for the first trials that all variants have a picture of.

    Of a class the first picture of every trial and, between them, the victims that are nearest to what the first
    variant handed in. beside: rows of another paper, below where they are of the same trials and the same truth.
    """
    common = sorted(set.intersection(*(set(trials) for trials in pictures.values()))) if pictures else []
    if not common:
        return
    first = next(iter(pictures.values()))
    of_class = all(len(first[trial]) > 2 for trial in common)
    each = 1 if of_class and len(common) > 1 else GRID
    rows = {NEAREST: _row(first, common, 2, each)} if of_class else {}
    rows |= {name: _row(trials, common, 1, each) for name, trials in pictures.items()}
    for name, trials in (beside or {}).items():
        if all(trial in trials and np.array_equal(trials[trial][0], first[trial][0]) for trial in common):
            rows.setdefault(name, _row(trials, common, 1, each))
    figures.grid(path, _row(first, common, 0, each), rows)


def _row(trials: Mapping[int, Pictures], common: Sequence[int], which: int, each: int) -> np.ndarray:
    """At most `GRID` pictures (n, C, H, W), so many of each trial."""
    return np.concatenate([trials[trial][which][:each] for trial in common])[:GRID]
