"""What a stage keeps beside its lines: quality curves (committed), reconstructions (not), and the grid of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from leakboard.board import figures
from leakboard.record import trial_lines
from leakboard.threat import Reconstruction

GRID = 8  # images shown per variant
CURVE = ["variant", "trial", "device_kind", "step", "evaluations", "seconds", "loss", "mse", "psnr"]
PLACE = ["variant", "trial", "device_kind"]
Pictures = tuple[np.ndarray, np.ndarray]  # truth and reconstruction of one trial, each (B, C, H, W)
Gallery = dict[str, dict[int, Pictures]]  # variant -> trial -> pictures


def read_curves(path: Path) -> pd.DataFrame:
    return (
        pd.read_csv(path, dtype={"variant": str, "device_kind": str}) if path.exists() else pd.DataFrame(columns=CURVE)
    )


def write_curves(path: Path, curves: pd.DataFrame) -> None:
    trial_lines.write_text(path, curves.to_csv(index=False, float_format="%.6g"))


def merged_curves(curves: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """The rows of a trial replace that trial's older ones."""
    if new.empty:
        return curves
    if len(curves):
        fresh = set(new[PLACE].itertuples(index=False, name=None))
        older = [row in fresh for row in curves[PLACE].itertuples(index=False, name=None)]
        new = pd.concat([curves[~np.array(older)], new], ignore_index=True)
    return new.sort_values([*PLACE, "step"], kind="stable", ignore_index=True)


def curve_rows(rows: Iterable[Sequence[Mapping]]) -> pd.DataFrame:
    return pd.DataFrame([row for one in rows for row in one], columns=CURVE)


def keep(folder: Path, variant: str, trial: int, got: Reconstruction | None, pictures: Pictures | None) -> None:
    """Keep what was handed in, and of the first trials the pictures, so that nothing need be attacked again to be seen
    or to be scored by another metric.
    """
    if got is None:
        return
    arrays = {"images": got.images.numpy()}
    if got.labels is not None:
        arrays["labels"] = got.labels.numpy()
    if pictures is not None and trial < GRID:
        arrays |= {"true": pictures[0], "shown": pictures[1]}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{variant}-{trial}.npz"
    with path.with_suffix(".part").open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    path.with_suffix(".part").replace(path)


def kept(folder: Path, variant: str, trial: int) -> Reconstruction | None:
    """What one trial handed in, where it was kept."""
    path = folder / f"{variant}-{trial}.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        labels = torch.from_numpy(arrays["labels"]) if "labels" in arrays else None
        return Reconstruction(torch.from_numpy(arrays["images"]), labels)


def gallery(folder: Path, variants: Iterable[str]) -> Gallery:
    """The pictures of the first trials that are here, in the order of the variants."""
    found: Gallery = {name: {} for name in variants}
    for name, trials in found.items():
        for trial in range(GRID):
            path = folder / f"{name}-{trial}.npz"
            if path.exists():
                with np.load(path, allow_pickle=False) as arrays:
                    if "true" in arrays:
                        trials[trial] = arrays["true"], arrays["shown"]
    return {name: trials for name, trials in found.items() if trials}


def draw_grid(path: Path, pictures: Gallery) -> None:
    """Truth above the reconstructions of every variant, for the first trials that all variants have a picture of."""
    common = sorted(set.intersection(*(set(trials) for trials in pictures.values()))) if pictures else []
    if not common:
        return
    true = np.concatenate([next(iter(pictures.values()))[trial][0] for trial in common])[:GRID]
    rows = {name: np.concatenate([trials[t][1] for t in common])[:GRID] for name, trials in pictures.items()}
    figures.grid(path, true, rows)
