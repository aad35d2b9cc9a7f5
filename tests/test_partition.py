"""Partitions among clients: disjoint, complete or saying what they leave out, repeatable."""

from __future__ import annotations

import numpy as np
import pytest

from leakboard.data import partition

LABELS = np.tile(np.arange(10), 60)[np.random.default_rng(5).permutation(600)]


def check_partition(parts, clients, complete=True):
    reached = partition.coverage(LABELS, parts)  # raises when two clients share an image
    assert len(parts) == clients and all((np.diff(part) > 0).all() for part in parts)
    if complete:
        assert reached.share == 1 and not reached.missing_classes and sum(reached.sizes) == len(LABELS)
    return reached


@pytest.mark.parametrize("seed", range(5))
def test_partitions_lose_nothing(seed):
    def rng():
        return np.random.default_rng(seed)

    sizes = check_partition(partition.iid(LABELS, 7, rng()), 7).sizes
    assert max(sizes) - min(sizes) <= 1
    for clients, each in [(5, 2), (7, 3), (30, 1), (4, 10)]:
        parts = partition.by_class(LABELS, clients, each, rng())
        check_partition(parts, clients)
        assert all(len(np.unique(LABELS[part])) == each for part in parts)
    assert min(check_partition(partition.dirichlet(LABELS, 8, 0.5, 15, rng()), 8).sizes) >= 15
    for first, second in zip(
        partition.dirichlet(LABELS, 8, 0.5, 15, rng()), partition.dirichlet(LABELS, 8, 0.5, 15, rng()), strict=True
    ):
        assert (first == second).all()


def test_label_split_reports_what_it_leaves_out():
    parts = partition.label_split(LABELS, [[0, 1, 2], [3, 4]])
    reached = check_partition(parts, 2, complete=False)
    assert reached.share == 0.5 and reached.missing_classes == (5, 6, 7, 8, 9) and reached.sizes == (180, 120)


def test_partitions_refuse_the_impossible():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="cannot hold all 10 classes"):
        partition.by_class(LABELS, 4, 2, rng)
    with pytest.raises(ValueError, match="at most 600"):
        partition.dirichlet(LABELS, 10, 0.5, 61, rng)
    with pytest.raises(ValueError, match="two groups"):
        partition.label_split(LABELS, [[0, 1], [1]])
    with pytest.raises(ValueError, match="no images of classes"):
        partition.label_split(LABELS, [[11]])
    with pytest.raises(ValueError, match="clients"):
        partition.iid(LABELS, 601, rng)
    with pytest.raises(ValueError, match="two clients"):
        partition.coverage(LABELS, [np.array([1, 2]), np.array([2])])
