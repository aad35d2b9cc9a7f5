"""Quality over the course of an attack: its snapshots, scored after it has ended."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

from torch import Tensor

from leakboard.score.assignment import match, stand_ins
from leakboard.score.similarity import mse, psnr

Row = dict[str, float]


class Snapshot(Protocol):
    """What an attack held after `step` steps: images (M, C, H, W), its own loss, the cost so far."""

    @property
    def step(self) -> int: ...
    @property
    def evaluations(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def loss(self) -> float: ...
    @property
    def images(self) -> Tensor: ...


def curve(snapshots: Iterable[Snapshot], true_images: Tensor, noise_images: Tensor) -> list[Row]:
    """One row per snapshot, in their order: step, evaluations, seconds, loss, and the mean mse and psnr (dB).

    Each snapshot is matched on its own, by the rules of `score`: a true image without a finite partner scores its
    noise image, so every mean runs over all true images and no row is NaN (but for `loss`, which is the attack's own).
    """
    rows = []
    for snapshot in snapshots:
        images = stand_ins(match(true_images, snapshot.images), snapshot.images, noise_images)
        cost: Row = {name: getattr(snapshot, name) for name in ("step", "evaluations", "seconds", "loss")}
        quality = {"mse": float(mse(true_images, images).mean()), "psnr": float(psnr(true_images, images).mean())}
        rows.append({**cost, **quality})
    return rows


def time_to(rows: Sequence[Row], psnr: float = 20.0) -> tuple[float, float]:
    """Seconds and gradient evaluations of the first row to reach `psnr` dB; (inf, inf), censored, when none does."""
    for row in rows:
        if row["psnr"] >= psnr:
            return row["seconds"], row["evaluations"]
    return math.inf, math.inf
