"""Slices of data sets, as benchmarks and recipes name them, and that no image is in two that must not share any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from leakboard.config.sections import Images
from leakboard.data.images import Dataset, ranges
from leakboard.data.loading import dataset_of
from leakboard.data.places import DataError


@dataclass(frozen=True, eq=False)
class Slice:
    """The images of a section: their data set and their official positions (N,) in it."""

    dataset: Dataset
    positions: np.ndarray

    def take(self) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) in [0, 1] and labels (N,)."""
        return self.dataset.take(self.positions)

    def __str__(self) -> str:
        return f"{self.dataset.name} {self.dataset.split} {ranges(self.positions)}"


def select(images: Images) -> Slice:
    """The slice that a section names, of the images that are here; DataError when there are none, or fewer than asked:
    what was trained on fewer images would bear the same name.
    """
    pool = dataset_of(images)
    positions = pool.available
    if images.classes is not None:
        positions = positions[np.isin(pool.labels.numpy(), images.classes)]
    chosen = positions[images.start :]
    chosen = chosen if images.count is None else chosen[: images.count]
    if len(chosen) < (images.count or 1):
        among = "" if images.classes is None else f" of classes {ranges(np.array(images.classes))}"
        left = f"{len(chosen):,} are left" if len(chosen) else "none is left"
        raise DataError(
            f"{images} has {len(positions):,} images here{among}; {left} from {images.start} on, expected "
            f"{'at least one' if images.count is None else f'{images.count:,}'}"
        )
    return Slice(pool, chosen)


def refuse_overlap(slices: Mapping[str, Slice]) -> None:
    """DataError that names two of the slices ({what: slice}) which share images, and which images."""
    listed = list(slices.items())
    for place, (what, one) in enumerate(listed):
        for other_what, other in listed[place + 1 :]:
            if shared := _shared(one, other):
                raise DataError(f"{what} and {other_what} share {shared}; they must have no image in common")


def refuse_common_classes(slices: Mapping[str, Slice]) -> None:
    """DataError that names two of the slices ({what: slice}), of one data set, which both have images of a class."""
    listed = list(slices.items())
    for place, (what, one) in enumerate(listed):
        for other_what, other in listed[place + 1 :]:
            common = sorted(_classes(one) & _classes(other)) if one.dataset.origin == other.dataset.origin else []
            if common:
                named = f"{', '.join(map(str, common[:10]))}{', ...' if len(common) > 10 else ''}"
                raise DataError(f"{what} and {other_what} both have images of class {named}; they must share no class")


def _classes(one: Slice) -> set[int]:
    places = np.searchsorted(one.dataset.available, one.positions)
    return set(np.unique(one.dataset.labels.numpy()[places]).tolist())


def _shared(one: Slice, other: Slice) -> str:
    """What two slices have in common, in words, or nothing. A lossy copy counts as what it is a copy of."""
    a, b = one.dataset, other.dataset
    if (a.origin, a.split) != (b.origin, b.split):
        return ""
    if a.name != b.name:
        return f"the split {a.split} of {a.origin}, of which {a.name if a.origin != a.name else b.name} is a copy"
    common = np.intersect1d(one.positions, other.positions)
    return f"{len(common):,} images of {a.name} {a.split} ({ranges(common)})" if len(common) else ""
