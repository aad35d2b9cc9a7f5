"""`photos`: crops of ten photographs that installed packages carry; the class is the photograph.

Each photograph is framed, scaled so that its short side is five crops, and cut in two: one side for test, the rest,
after a gap, for train. No pixel is in both splits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leakboard.data.images import Dataset, as_images, as_labels
from leakboard.data.places import DataError
from leakboard.data.sources import required

SIZES = (16, 32, 64)
CROPS_ACROSS = 5  # the short side of a framed photograph, in crops
GAP = 4  # pixels between the two regions, after scaling
PER_CLASS = {"train": 100, "test": 12}
LEAST_CONTRAST = 0.04  # standard deviation of a training crop's brightness, in [0, 1]


@dataclass(frozen=True)
class Photograph:
    """One photograph: name, installed file, where the test part is cut off, and the part of it that is used.

    `test_side` is the edge at which the test part lies, `test_share` its share of the frame along that axis; `frame` is
    (top, bottom, left, right) as fractions of the photograph.
    """

    name: str
    file: str
    test_side: str
    test_share: float = 0.46
    frame: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0)


# The position in this list is the class. Cuts run through the subject, so both parts show some of it.
PHOTOGRAPHS = (
    Photograph("pagoda", "datasets/images/china.jpg", "left", 0.48, (0.0, 1.0, 0.0, 0.7)),
    Photograph("dahlia", "datasets/images/flower.jpg", "left", 0.48, (0.15, 0.9, 0.23, 0.73)),
    Photograph("astronaut", "data/astronaut.png", "top"),
    Photograph("cat", "data/chelsea.png", "left", 0.52),
    Photograph("coffee", "data/coffee.png", "left", 0.48),
    Photograph("rocket", "data/rocket.jpg", "left", 0.55, (0.25, 1.0, 0.0, 1.0)),
    Photograph("retina", "data/retina.jpg", "left", 0.5, (0.1, 0.9, 0.05, 0.9)),
    Photograph("admiral", "mpl-data/sample_data/grace_hopper.jpg", "top", 0.52),
    Photograph("tissue", "data/ihc.png", "left"),
    Photograph("motorcycle", "data/motorcycle_left.png", "left", 0.46, (0.15, 1.0, 0.1, 1.0)),
)


def photos(split: str, size: int | None) -> Dataset:
    """1,000 train and 120 test crops, 3 x size x size; position modulo 10 is the class, so any first n are balanced."""
    side = size or 32
    if side not in SIZES:
        raise DataError(f"data set photos comes in {SIZES} pixels, not {size}")
    files: dict[str, Path] = {}
    for package in ("sklearn", "skimage", "matplotlib"):
        files |= required("photos", f"in_{package}")
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
    """uint8 (n, 3, side, side): the crops of one photograph for a split, in a fixed order that jumps about."""
    pixels = scaled(photo, file, side)
    corners = corners_of(pixels, photo, split, side)
    crops = np.stack([pixels[top : top + side, left : left + side] for top, left in corners])
    return np.moveaxis(crops, -1, 1)


def corners_of(pixels: np.ndarray, photo: Photograph, split: str, side: int) -> np.ndarray:
    """(n, 2) top left corners, in the scaled photograph (H, W, 3), of the crops that a split consists of."""
    top, bottom, left, right = region(photo, split, *pixels.shape[:2])
    step = side // 8
    rows = np.arange(top, bottom - side + 1, step)
    columns = np.arange(left, right - side + 1, step)
    corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    brightness = pixels.mean(axis=2) / 255
    contrast = np.array([brightness[y : y + side, x : x + side].std() for y, x in corners])
    choose = apart if split == "test" else spread
    chosen = choose(corners, contrast, PER_CLASS[split], side)
    return corners[chosen][np.arange(len(chosen)) * 43 % len(chosen)]  # 43 shares no factor with 12 or 100


def scaled(photo: Photograph, file: Path, side: int) -> np.ndarray:
    """The framed photograph (H, W, 3) uint8, averaged down so that its short side is five crops; never enlarged."""
    from PIL import Image

    with Image.open(file) as opened:
        image = opened.convert("RGB")
    top, bottom, left, right = photo.frame
    image = image.crop(
        (round(left * image.width), round(top * image.height), round(right * image.width), round(bottom * image.height))
    )
    factor = min(1.0, CROPS_ACROSS * side / min(image.size))
    width, height = (round(length * factor) for length in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def region(photo: Photograph, split: str, height: int, width: int) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the part of a scaled photograph that belongs to a split."""
    upright = photo.test_side == "top"
    length = height if upright else width
    cut = round(photo.test_share * length)
    start, stop = (0, cut) if split == "test" else (cut + GAP, length)
    return (start, stop, 0, width) if upright else (0, height, start, stop)


def apart(corners: np.ndarray, contrast: np.ndarray, count: int, side: int) -> np.ndarray:
    """Indices of `count` crops, the richest in contrast first, that overlap as little as the region allows.

    A crop is taken when it shares at most a quarter of its area with each one taken before (a half when room is short).
    """
    ranked = np.argsort(-contrast, kind="stable")
    chosen: list[int] = []
    for allowed in (0.25, 0.375, 0.5):
        for index in ranked:
            distance = np.abs(corners[index] - corners[chosen])
            shared = np.clip(side - distance, 0, None).prod(axis=1) / side**2
            if len(chosen) < count and index not in chosen and (shared <= allowed).all():
                chosen.append(int(index))
    return np.array(chosen)


def spread(corners: np.ndarray, contrast: np.ndarray, count: int, side: int) -> np.ndarray:
    """Indices of `count` crops, evenly spread over those with enough contrast (at least the 2 x count richest)."""
    enough = max(2 * count, int((contrast >= LEAST_CONTRAST).sum()))
    usable = np.sort(np.argsort(-contrast, kind="stable")[:enough])
    return usable[np.linspace(0, len(usable) - 1, count).round().astype(int)]
