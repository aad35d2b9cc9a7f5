"""`photos`: crops of ten photographs that scikit-learn and scikit-image carry; the class is the photograph.

Each photograph is scaled so that its short side is six crops, and cut in two: a strip on one side for test, the rest, after a
gap, for train. No pixel is in both splits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leakboard.data.images import Dataset, as_images, as_labels
from leakboard.data.places import DataError
from leakboard.data.sources import required

SIZES = (16, 32, 64)
CROPS_ACROSS = 6  # the short side of a photograph, in crops
TEST_SHARE = 0.42  # of the side that is cut
GAP = 4  # pixels between the two regions, after scaling
PER_CLASS = {"train": 100, "test": 12}
LEAST_CONTRAST = 0.06  # standard deviation of a crop's pixels, in [0, 1]


@dataclass(frozen=True)
class Photograph:
    """One photograph: its name, the installed file, and the side from which the test crops are cut."""

    name: str
    file: str
    test_side: str


# The position in this list is the class.
PHOTOGRAPHS = (
    Photograph("china", "datasets/images/china.jpg", "right"),
    Photograph("flower", "datasets/images/flower.jpg", "right"),
    Photograph("astronaut", "data/astronaut.png", "top"),
    Photograph("cat", "data/chelsea.png", "left"),
    Photograph("coffee", "data/coffee.png", "right"),
    Photograph("rocket", "data/rocket.jpg", "right"),
    Photograph("retina", "data/retina.jpg", "left"),
    Photograph("hubble", "data/hubble_deep_field.jpg", "left"),
    Photograph("tissue", "data/ihc.png", "left"),
    Photograph("motorcycle", "data/motorcycle_left.png", "left"),
)


def photos(split: str, size: int | None) -> Dataset:
    """1,000 train and 120 test crops, 3 x size x size; position modulo 10 is the class, so any first n are balanced."""
    side = size or 32
    if side not in SIZES:
        raise DataError(f"data set photos comes in {SIZES} pixels, not {size}")
    files = required("photos", "bundled_photographs") | required("photos", "bundled_science")
    crops = np.stack([crops_of(photo, files[photo.file], split, side) for photo in PHOTOGRAPHS], axis=1)
    pixels = crops.reshape(-1, 3, side, side)
    labels = np.tile(np.arange(len(PHOTOGRAPHS)), len(crops))
    return Dataset(
        "photos",
        split,
        len(PHOTOGRAPHS),
        (3, side, side),
        len(pixels),
        np.arange(len(pixels)),
        as_labels(labels),
        lambda rows: as_images(pixels[rows]),
    )


def crops_of(photo: Photograph, file: Path, split: str, side: int) -> np.ndarray:
    """uint8 (n, 3, side, side): the crops of one photograph for a split, in a fixed order that jumps about the region."""
    pixels = scaled(file, side)
    top, bottom, left, right = region(photo, split, *pixels.shape[:2])
    area = pixels[top:bottom, left:right]
    fraction = 1.0 if split == "test" else 0.25  # distance between neighbours, in crops
    rows, columns = (_starts(length, side, fraction) for length in area.shape[:2])
    crops = np.stack([area[y : y + side, x : x + side] for y in rows for x in columns])
    crops = np.moveaxis(crops, -1, 1)
    return crops[_chosen(crops, PER_CLASS[split])]


def scaled(file: Path, side: int) -> np.ndarray:
    """The photograph (H, W, 3) uint8 averaged down so that its short side is six crops; never enlarged."""
    from PIL import Image

    with Image.open(file) as opened:
        image = opened.convert("RGB")
    factor = min(1.0, CROPS_ACROSS * side / min(image.size))
    width, height = (round(length * factor) for length in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def region(photo: Photograph, split: str, height: int, width: int) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the part of a scaled photograph that belongs to a split."""
    length = height if photo.test_side in ("top", "bottom") else width
    cut = round(TEST_SHARE * length)
    first = photo.test_side in ("top", "left")  # the test strip comes first along the axis that is cut
    if first == (split == "test"):
        start, stop = 0, cut if split == "test" else length - cut - GAP
    else:
        start, stop = (length - cut if split == "test" else cut + GAP), length
    return (start, stop, 0, width) if photo.test_side in ("top", "bottom") else (0, height, start, stop)


def _starts(length: int, side: int, fraction: float) -> np.ndarray:
    """Crop starts from edge to edge, about `fraction` of a crop apart."""
    count = max(1, round((length - side) / (side * fraction)) + 1)
    return np.linspace(0, length - side, count).round().astype(int)


def _chosen(crops: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` crops with enough contrast, spread over the region, then visited in a fixed jumping order."""
    contrast = crops.reshape(len(crops), -1).std(axis=1) / 255
    usable = np.flatnonzero(contrast >= LEAST_CONTRAST)
    if len(usable) < count:
        usable = np.sort(np.argsort(-contrast, kind="stable")[:count])
    spread = usable[np.linspace(0, len(usable) - 1, count).round().astype(int)]
    return spread[np.arange(count) * 7 % count]  # 7 shares no factor with 12 or 100
