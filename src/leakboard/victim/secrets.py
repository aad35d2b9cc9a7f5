"""What the attack is after, and what anybody may have instead."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from leakboard.config import Benchmark
from leakboard.data import DataError, Dataset, Slice, refuse_overlap, select
from leakboard.data.loading import dataset_of
from leakboard.threat import Public


@dataclass(frozen=True)
class Secret:
    """The true images (B, C, H, W) in [0, 1] and labels (B,) of one trial. Only victim and score ever hold it."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Secret:
        return Secret(self.images.to(device), self.labels.to(device))


def secret(benchmark: Benchmark, trial: int) -> Secret:
    """The images of one trial: consecutive in official order, no image in two trials.

    For a released model the classes take turns as the target, and the secrets are images of that class. With
    `equal_labels`, so many of the batch have that class and the others are of the classes after it.
    """
    victims = dataset_of(benchmark.data)
    if not victims.truth:
        raise DataError(
            f"{victims.name} is a lossy copy: it may train a network but is never what an attack is scored on"
        )
    return Secret(*victims.take(_positions(benchmark, trial)))


def _positions(benchmark: Benchmark, trial: int) -> Sequence[int] | np.ndarray:
    """The official positions of one trial's images. DataError where one of them is public."""
    victims = dataset_of(benchmark.data)
    if benchmark.threat.sees == "released":
        classes = benchmark.data.classes or range(victims.classes)
        return _of_class(benchmark, classes[trial % len(classes)])
    if benchmark.equal_labels is not None:
        return _with_equal_labels(victims, benchmark, benchmark.equal_labels, trial)
    chosen = _in_order(benchmark, trial)
    if benchmark.public_images is not None:
        hidden = Slice(victims, chosen)
        refuse_overlap({f"{benchmark.name}: the images of trial {trial}": hidden, "public images": _pool(benchmark)})
    return chosen


def _in_order(benchmark: Benchmark, trial: int) -> np.ndarray:
    """The batch of `trial` in official order; of some classes or up to a count, among the images that are here."""
    data, first = benchmark.data, trial * benchmark.batch
    if data.classes is None and data.count is None:
        return np.arange(data.start + first, data.start + first + benchmark.batch)
    chosen = select(data).positions[first : first + benchmark.batch]
    if len(chosen) < benchmark.batch:
        raise DataError(f"{benchmark.name}: {data} has no {benchmark.batch} images left for trial {trial}")
    return chosen


def _of_class(benchmark: Benchmark, target: int) -> np.ndarray:
    pool = select(benchmark.data)
    labels = pool.dataset.labels.numpy()[np.searchsorted(pool.dataset.available, pool.positions)]
    chosen = pool.positions[labels == target][: benchmark.batch]
    if len(chosen) < benchmark.batch:
        raise DataError(
            f"{benchmark.name}: {benchmark.data} has {len(chosen)} images of class {target}, expected {benchmark.batch}"
        )
    return chosen


def _with_equal_labels(victims: Dataset, benchmark: Benchmark, equal: int, trial: int) -> list[int]:
    """Positions of the batch of `trial`: of every class its images in order, each in one batch only."""
    if not 1 <= equal <= benchmark.batch or benchmark.batch - equal >= victims.classes:
        raise DataError(
            f"{benchmark.name}: {equal} equal labels in a batch of {benchmark.batch} with {victims.classes} classes"
        )
    labels = victims.labels.numpy()
    waiting = {label: deque(victims.available[labels == label].tolist()) for label in range(victims.classes)}
    for number in range(trial + 1):
        others = [(number + step) % victims.classes for step in range(1, benchmark.batch - equal + 1)]
        wanted = [number % victims.classes] * equal + others
        short = [label for label in wanted if len(waiting[label]) < wanted.count(label)]
        if short:
            raise DataError(f"{benchmark.name}: {benchmark.data} has no images of class {short[0]} left")
        chosen = [waiting[label].popleft() for label in wanted]
    return chosen


def victim_slice(benchmark: Benchmark) -> Slice:
    """All images that any trial of the benchmark hides, as far as they are here."""
    victims = dataset_of(benchmark.data)
    if benchmark.threat.sees == "released" or benchmark.equal_labels is not None:
        return select(benchmark.data)
    asked = benchmark.trials * benchmark.batch
    if benchmark.data.classes is not None or benchmark.data.count is not None:
        return Slice(victims, select(benchmark.data).positions[:asked])
    first = benchmark.data.start
    return Slice(victims, np.intersect1d(np.arange(first, first + asked), victims.available))


def _pool(benchmark: Benchmark) -> Slice:
    assert benchmark.public_images is not None
    return select(benchmark.public_images)


def public(benchmark: Benchmark) -> Public | None:
    """Images that are no victims, for everybody; None where the threat model grants none."""
    if benchmark.public_images is None:
        return None
    pool = _pool(benchmark)
    refuse_overlap({f"{benchmark.name}: victims": victim_slice(benchmark), "public images": pool})
    return Public(*pool.take())


def shape_and_classes(benchmark: Benchmark) -> tuple[tuple[int, int, int], int]:
    victims = dataset_of(benchmark.data)
    return victims.shape, victims.classes
