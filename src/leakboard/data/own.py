"""Images of one's own, as a benchmark names them: an `.npz` of arrays, or a folder of pictures.

Either is identified by a hash of what it holds (`config/own.py`), and read again when that changes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.lib.npyio import NpzFile
from torch import Tensor, from_numpy

from leakboard.config.own import fingerprint, place, visible
from leakboard.config.sections import Images
from leakboard.data.images import Dataset, as_images, as_labels, decoded
from leakboard.data.places import DataError

ARRAYS = ("images", "labels", "split")
SPLITS = ("train", "test")
GREY = ("1", "L", "LA", "La")
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # what PIL would cut down to 8 bits
RULE = "unless told otherwise, every fourth image of a class is test"


@dataclass(frozen=True, eq=False)
class Whole:
    """All images of one source, in order. labels (N,): classes from 0 on, each with an image. splits (N,): words.

    read: rows (M,) -> (M, C, H, W) float32 in [0, 1].
    """

    shape: tuple[int, int, int]
    labels: np.ndarray
    splits: np.ndarray
    read: Callable[[np.ndarray], Tensor]


def own_dataset(images: Images) -> Dataset:
    """One split of the `file` or `folder` that a section names. DataError names the file and what is wrong in it."""
    asked = images.file or images.folder
    assert asked is not None
    path = place(asked)
    if not (path.is_file() if images.file else path.is_dir()):
        what = "file" if images.file else "folder"
        raise DataError(f"there is no {what} {path}; a relative path starts at the checkout")
    whole = (_file if images.file else _folder)(path, images.size, fingerprint(asked))
    rows = np.flatnonzero(whole.splits == images.split)
    if not len(rows):
        there = ", ".join(sorted(set(whole.splits.tolist())))
        raise DataError(f"{path} has no image in the split {images.split!r}; there are: {there} ({RULE})")
    read = whole.read
    return Dataset(
        str(path), images.split, int(whole.labels.max()) + 1, whole.shape, len(rows), np.arange(len(rows)),
        as_labels(whole.labels[rows]), lambda positions: read(rows[positions]),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# A file.


@lru_cache(maxsize=4)
def _file(path: Path, size: int | None, sha: str) -> Whole:
    """An `.npz`: images (N, C, H, W) or (N, H, W), labels (N,) and perhaps split (N,). sha: of its content."""
    arrays = _arrays(path)
    pixels = _pixels(path, arrays["images"])
    if size is not None and pixels.shape[2:] != (size, size):
        height, width = pixels.shape[2:]
        raise DataError(
            f"{path}: size {size}, but its images are {height}x{width}; only pictures in a folder are resized"
        )
    labels = _labels(path, arrays["labels"], len(pixels))
    splits = _split_words(path, arrays["split"], len(pixels)) if "split" in arrays else every_fourth(labels)

    def read(rows: np.ndarray) -> Tensor:
        chosen = pixels[rows]
        return as_images(chosen) if chosen.dtype == np.uint8 else from_numpy(chosen.astype(np.float32))

    return Whole(pixels.shape[1:], labels, splits, read)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the file by name. Nothing in it is ever run: an array of Python objects is refused."""
    try:
        content = np.load(path, allow_pickle=False)
        found = {name: content[name] for name in content.files} if isinstance(content, NpzFile) else {}
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is no .npz of plain arrays: {error}") from None
    lacking, unknown = (sorted(a - b) for a, b in ((set(ARRAYS[:2]), set(found)), (set(found), set(ARRAYS))))
    if lacking or unknown:
        named = ", ".join(sorted(found)) or "none"
        raise DataError(f"{path}: its named arrays are {named}; expected images, labels and, if need be, split")
    return found


def _pixels(path: Path, images: np.ndarray) -> np.ndarray:
    """(N, C, H, W), uint8 or floats in [0, 1]."""
    found = f"{path}: images have shape {images.shape} and type {images.dtype}"
    images = images[:, None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.size:
        raise DataError(f"{found}; expected (N, C, H, W) with 1 or 3 channels C, or (N, H, W)")
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise DataError(f"{found}; expected uint8 (0 to 255) or floats in [0, 1]")
    low, high = images.min(), images.max()
    if images.dtype != np.uint8 and not (low >= 0 and high <= 1):  # nor is NaN
        raise DataError(f"{path}: images hold values from {low:g} to {high:g}; expected floats in [0, 1]")
    return images


def _labels(path: Path, labels: np.ndarray, count: int) -> np.ndarray:
    """(N,) integers, of which every one from 0 to the largest is there."""
    found = f"{path}: labels have shape {labels.shape} and type {labels.dtype}"
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(f"{found}; expected ({count},), one integer an image")
    classes = np.unique(labels)
    if not np.array_equal(classes, np.arange(len(classes))) or len(classes) < 2:
        between = f"{len(classes)} different labels from {classes[0]} to {classes[-1]}"
        raise DataError(
            f"{path}: {between}; expected 0, 1, ... up to the last of two classes or more, none without an image"
        )
    return labels.astype(np.int64)


def _split_words(path: Path, splits: np.ndarray, count: int) -> np.ndarray:
    if splits.shape != (count,) or splits.dtype.kind != "U":
        found = f"{path}: split has shape {splits.shape} and type {splits.dtype}"
        raise DataError(f"{found}; expected ({count},), one word an image, such as {' or '.join(SPLITS)}")
    return splits


# ---------------------------------------------------------------------------------------------------------------------
# A folder.


@lru_cache(maxsize=4)
def _folder(path: Path, size: int | None, sha: str) -> Whole:
    """Pictures in sub-folders, a class each; above these, if there are both `train` and `test`, the splits.

    Classes are numbered by name and take turns: of each its first picture by name, of each its second, and so on.
    Grey where all pictures are. size: of the square to which the largest centred one is resized. sha: of the content.
    """
    found = _listed(path)
    names, labels = np.unique([name for _, name, _ in found], return_inverse=True)
    if len(names) < 2:
        raise DataError(f"{path} has pictures of one class, {names[0]}; expected two classes or more")
    named = [split for split, _, _ in found]
    splits = np.array(named) if all(named) else every_fourth(labels)
    _, parts = np.unique(splits, return_inverse=True)
    turns = np.lexsort((labels, _ranks(parts * len(names) + labels)))
    pictures = [found[row][2] for row in turns]
    mode, (height, width) = _form(pictures, size)

    def read(rows: np.ndarray) -> Tensor:
        return as_images(np.stack([_picture(pictures[row], mode, (height, width)) for row in rows]))

    return Whole((1 if mode == "L" else 3, height, width), labels[turns], splits[turns], read)


def _listed(path: Path) -> list[tuple[str, str, Path]]:
    """(split, class, picture) of every picture; the split is empty where the folders tell none."""
    tops = _folders(path)
    if {top.name for top in tops} >= set(SPLITS):
        return [
            (top.name, folder.name, picture) for top in tops for folder in _folders(top) for picture in _files(folder)
        ]
    return [("", top.name, picture) for top in tops for picture in _files(top)]


def _folders(path: Path) -> list[Path]:
    found = [inner for inner in visible(path) if inner.is_dir()]
    if not found:
        raise DataError(f"{path} holds no sub-folder, expected one for each class")
    return found


def _files(folder: Path) -> list[Path]:
    found = visible(folder)
    if not found or any(inner.is_dir() for inner in found):
        what = next((f"the folder {inner.name}" for inner in found if inner.is_dir()), "nothing")
        raise DataError(f"{folder} holds {what}, expected the pictures of one class")
    return found


def _form(pictures: list[Path], size: int | None) -> tuple[str, tuple[int, int]]:
    """(mode that PIL shall convert to, (height, width)) of all pictures."""
    heads = {picture: _head(picture) for picture in pictures}
    mode = "L" if all(mode in GREY for mode, _ in heads.values()) else "RGB"
    if size is not None:
        return mode, (size, size)
    first: dict[tuple[int, int], Path] = {}
    for picture, (_, sides) in heads.items():
        first.setdefault(sides, picture)
    if len(first) > 1:
        (one, a), (other, b) = list(first.items())[:2]
        sizes = f"{a} is {one[0]}x{one[1]}, {b} is {other[0]}x{other[1]}"
        raise DataError(f"pictures of several sizes: {sizes}; `size` brings all to one square")
    return mode, next(iter(first))


def _head(picture: Path) -> tuple[str, tuple[int, int]]:
    """(PIL's mode, (height, width)) of a picture, without its pixels."""
    from PIL import Image

    try:
        with Image.open(picture) as image:
            mode, sides = image.mode, (image.height, image.width)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{picture} is no picture that PIL reads: {error}") from None
    if mode in DEEP:
        raise DataError(
            f"{picture} has pixels of more than 8 bits (mode {mode}), which only an .npz can hold as floats"
        )
    return mode, sides


def _picture(picture: Path, mode: str, sides: tuple[int, int]) -> np.ndarray:
    """uint8 (C, H, W)."""
    try:
        return decoded(picture.read_bytes(), mode, sides)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{picture} is no whole picture: {error}") from None


# ---------------------------------------------------------------------------------------------------------------------
# Splits.


def every_fourth(labels: np.ndarray) -> np.ndarray:
    """Words (N,): of each class every fourth image is test, the others are train."""
    return np.where(_ranks(labels) % 4 == 3, "test", "train")


def _ranks(keys: np.ndarray) -> np.ndarray:
    """(N,) -> of each element, how many equal ones stand before it."""
    order = np.argsort(keys, kind="stable")
    ranks = np.empty(len(keys), dtype=np.int64)
    ranks[order] = np.arange(len(keys)) - np.searchsorted(keys[order], keys[order])
    return ranks
