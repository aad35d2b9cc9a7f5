"""Small real images inside packages that Leakboard needs anyway: digits and faces. Nothing to download."""

from __future__ import annotations

import numpy as np
import torch

from leakboard.data.images import Dataset, as_labels
from leakboard.data.places import DataError
from leakboard.data.sources import required


def fixed_size(name: str, native: int, size: int | None) -> None:
    """Raises DataError unless `size` is None or the only size there is."""
    if size not in (None, native):
        raise DataError(f"data set {name} comes in {native} pixels only, not {size}")


def digits(split: str, size: int | None) -> Dataset:
    """1,797 handwritten digits, 1x8x8; in every class each fourth digit is test (445), the others train (1,352)."""
    fixed_size("digits", 8, size)
    file = required("digits", "bundled")["datasets/data/digits.csv.gz"]
    table = np.loadtxt(file, delimiter=",", dtype=np.float32)  # 64 values in 0..16 and the class
    labels = table[:, 64].astype(np.int64)
    rank = np.zeros(len(labels), dtype=np.int64)
    for digit in range(10):
        rank[labels == digit] = np.arange((labels == digit).sum())
    chosen = (rank % 4 == 3) == (split == "test")
    images = torch.from_numpy(table[chosen, :64].reshape(-1, 1, 8, 8) / 16)
    return _in_memory("digits", split, 10, images, labels[chosen])


def faces(split: str, size: int | None) -> Dataset:
    """100 faces (label 1) and 100 background patches (label 0) of LFW, 1x25x25, no identities.

    Of either kind the first 70 are train, the last 30 test. The faces come first: test positions 0-29, train 0-69.
    """
    fixed_size("faces", 25, size)
    file = required("faces", "bundled")["data/lfw_subset.npy"]
    patches = np.load(file, allow_pickle=False).astype(np.float32)
    kept = slice(70, 100) if split == "test" else slice(0, 70)
    images = np.concatenate([patches[:100][kept], patches[100:][kept]])[:, None]
    half = len(images) // 2
    return _in_memory("faces", split, 2, torch.from_numpy(images), np.repeat([1, 0], half))


def _in_memory(name: str, split: str, classes: int, images: torch.Tensor, labels: np.ndarray) -> Dataset:
    """A complete split whose float images (N, C, H, W) are held in memory."""
    channels, height, width = images.shape[1:]
    return Dataset(
        name,
        split,
        classes,
        (channels, height, width),
        len(images),
        np.arange(len(images)),
        as_labels(labels),
        lambda rows: images[torch.from_numpy(rows)],
    )
