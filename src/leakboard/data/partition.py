"""Who holds which images: partitions of a labelled data set among clients.

Every function returns one array of positions per client, ascending and disjoint. `coverage` reports what is left out:
no image and no class may vanish unnoticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from torch import Tensor

from leakboard.config.federated import Rounds

Labels = Tensor | np.ndarray | Sequence[int]


@dataclass(frozen=True)
class Coverage:
    """What a partition reaches: `share` of all images in [0, 1], images per client, and classes that nobody holds."""

    share: float
    sizes: tuple[int, ...]
    missing_classes: tuple[int, ...]


def coverage(labels: Labels, parts: Sequence[np.ndarray]) -> Coverage:
    """The coverage of a partition; raises ValueError when an image is in two parts."""
    y = np.asarray(labels)
    held = np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])
    if len(np.unique(held)) != len(held):
        raise ValueError("a partition gives an image to two clients")
    missing = np.setdiff1d(y, y[held])
    return Coverage(len(held) / len(y), tuple(len(part) for part in parts), tuple(int(c) for c in missing))


def deal(labels: Labels, spec: Rounds, clients: int, rng: Generator) -> list[np.ndarray]:
    """The partition that a federation names, among so many clients; raises ValueError when it cannot be met."""
    if spec.partition == "classes":
        assert spec.classes_per_client is not None
        return by_class(labels, clients, spec.classes_per_client, rng)
    if spec.partition == "dirichlet":
        assert spec.beta is not None
        return dirichlet(labels, clients, spec.beta, spec.minimum, rng)
    if spec.partition == "label":
        assert spec.groups is not None
        if len(spec.groups) != clients:
            raise ValueError(f"{len(spec.groups)} groups of classes for {clients} clients")
        return label_split(labels, spec.groups)
    return iid(labels, clients, rng)


def iid(labels: Labels, clients: int, rng: Generator) -> list[np.ndarray]:
    """All images at random into `clients` parts whose sizes differ by at most one."""
    _at_least_one(clients, len(labels))
    return [np.sort(part) for part in np.array_split(rng.permutation(len(labels)), clients)]


def by_class(labels: Labels, clients: int, classes_per_client: int, rng: Generator) -> list[np.ndarray]:
    """Each client holds images of exactly `classes_per_client` classes; no image and no class is lost.

    Classes are dealt evenly: their numbers of holders differ by at most one, and holders share a class evenly. Raises
    ValueError when clients * classes_per_client cannot reach all classes, or a class has fewer images than holders.
    """
    y = np.asarray(labels)
    _at_least_one(clients, len(y))
    classes = np.unique(y)
    if not 1 <= classes_per_client <= len(classes):
        raise ValueError(f"classes_per_client is {classes_per_client}, the data has {len(classes)} classes")
    if clients * classes_per_client < len(classes):
        raise ValueError(
            f"{clients} clients with {classes_per_client} classes each cannot hold all {len(classes)} classes"
        )
    hands = _dealt(len(classes), clients, classes_per_client, rng)
    parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for place, label in enumerate(classes):
        holders = [client for client in range(clients) if place in hands[client]]
        members = rng.permutation(np.flatnonzero(y == label))
        if len(members) < len(holders):
            raise ValueError(f"class {label} has {len(members)} images for {len(holders)} clients")
        for client, share in zip(holders, np.array_split(members, len(holders)), strict=True):
            parts[client].append(share)
    return [np.sort(np.concatenate(part)) for part in parts]


def _dealt(classes: int, clients: int, each: int, rng: Generator) -> list[set[int]]:
    """Class places per client: always the least dealt classes, ties at random; no client gets a class twice."""
    dealt = np.zeros(classes, dtype=np.int64)
    hands = []
    for _ in range(clients):
        order = np.lexsort((rng.random(classes), dealt))[:each]
        dealt[order] += 1
        hands.append({int(place) for place in order})
    return hands


def dirichlet(labels: Labels, clients: int, beta: float, minimum: int, rng: Generator) -> list[np.ndarray]:
    """Each class is divided by shares from Dirichlet(beta, ..., beta); drawn again until all hold >= `minimum` images.

    Covers every image. Raises ValueError when that cannot be met, or was not in 1,000 draws.
    """
    y = np.asarray(labels)
    _at_least_one(clients, len(y))
    if beta <= 0 or minimum * clients > len(y):
        raise ValueError(f"beta {beta} must be positive and {clients} x {minimum} images at most {len(y)}")
    for _ in range(1000):
        parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for label in np.unique(y):
            members = rng.permutation(np.flatnonzero(y == label))
            ends = np.round(np.cumsum(rng.dirichlet(np.full(clients, beta))) * len(members)).astype(np.int64)
            for part, share in zip(parts, np.split(members, ends[:-1]), strict=True):
                part.append(share)
        joined = [np.sort(np.concatenate(part)) for part in parts]
        if min(len(part) for part in joined) >= minimum:
            return joined
    raise ValueError(f"no Dirichlet({beta}) partition among {clients} clients with >= {minimum} images in 1,000 draws")


def label_split(labels: Labels, groups: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """One part per group of classes, all their images; classes in no group are left out (see `coverage`).

    Raises ValueError when a class is in two groups or has no images.
    """
    y = np.asarray(labels)
    named = [label for group in groups for label in group]
    if len(set(named)) != len(named):
        raise ValueError(f"a class is in two groups: {groups}")
    absent = sorted(set(named) - {int(label) for label in np.unique(y)})
    if absent:
        raise ValueError(f"no images of classes {absent}")
    return [np.flatnonzero(np.isin(y, list(group))) for group in groups]


def _at_least_one(clients: int, images: int) -> None:
    if not 1 <= clients <= images:
        raise ValueError(f"{clients} clients for {images} images")
