"""What the attack is after, and what anybody may have instead."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from leakboard.config import Benchmark
from leakboard.data import DataError, Dataset, dataset
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

    For a released model the target class is trial % classes and the secrets are images of that class. With
    `equal_labels`, so many of the batch have that class and the others are of the classes after it.
    """
    source = benchmark.data
    first = source.start + trial * benchmark.batch
    victims = dataset(source.name, source.split, source.size)
    if not victims.truth:
        raise DataError(
            f"{source.name} is a lossy copy: it may train a network but is never what an attack is scored on"
        )
    if benchmark.threat.sees == "released":
        of_class = victims.available[victims.labels.numpy() == trial % victims.classes]
        return Secret(*victims.take(of_class[: benchmark.batch]))
    if source.public_split == source.split and source.public_count and first + benchmark.batch > source.public_start:
        raise DataError(f"{benchmark.name}: the images of trial {trial} are public, from {source.public_start} on")
    if source.equal_labels is not None:
        return Secret(*victims.take(_with_equal_labels(victims, benchmark, source.equal_labels, trial)))
    return Secret(*victims.take(range(first, first + benchmark.batch)))


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
            raise DataError(
                f"{benchmark.name}: {benchmark.data.name} {benchmark.data.split} has no images of class {short[0]} left"
            )
        chosen = [waiting[label].popleft() for label in wanted]
    return chosen


def public(benchmark: Benchmark) -> Public | None:
    """Images that are no victims: of another split, or from beyond them in the same one."""
    source = benchmark.data
    if source.public_count == 0:
        return None
    last = source.start + benchmark.trials * benchmark.batch
    if source.public_split == source.split and source.public_start < last:
        raise DataError(
            f"{benchmark.name}: public images and victims both come from {source.name} {source.split}, and the public "
            f"ones begin at {source.public_start}, before the last victim, {last - 1}"
        )
    pool = dataset(source.name, source.public_split, source.size)
    return Public(*pool.take(pool.available[source.public_start :][: source.public_count]))


def shape_and_classes(benchmark: Benchmark) -> tuple[tuple[int, int, int], int]:
    victims = dataset(benchmark.data.name, benchmark.data.split, benchmark.data.size)
    return victims.shape, victims.classes
