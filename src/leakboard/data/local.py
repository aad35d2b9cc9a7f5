"""Data sets as plain files below the data root: MNIST, CIFAR-10 and -100, AT&T faces, LFW and ten people of it."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import tarfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from leakboard.data.bundled import fixed_size
from leakboard.data.images import Dataset, as_images, as_labels, decoded, resized
from leakboard.data.places import DataError
from leakboard.data.sources import checksum_of, located, required, source


def mnist(split: str, size: int | None) -> Dataset:
    """MNIST from its official idx files, 1x28x28; at size 32 with two black pixels around."""
    if size not in (None, 28, 32):
        raise DataError(f"data set mnist comes in 28 and 32 pixels, not {size}")
    files = required("mnist", "official", split)
    prefix = "train" if split == "train" else "t10k"
    labels = _idx(files[f"{prefix}-labels-idx1-ubyte.gz"])
    images = files[f"{prefix}-images-idx3-ubyte.gz"]
    side, margin = size or 28, 2 if size == 32 else 0
    around = ((0, 0), (0, 0), (margin, margin), (margin, margin))
    return Dataset(
        "mnist",
        split,
        10,
        (1, side, side),
        len(labels),
        np.arange(len(labels)),
        as_labels(labels),
        lambda rows: as_images(np.pad(_idx(images)[rows][:, None], around)),
    )


@lru_cache(maxsize=4)
def _idx(path: Path) -> np.ndarray:
    """An idx file of bytes: two zeros, type 8, the number of axes, each axis as big-endian int32, the values."""
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is no idx file of bytes")
    axes = content[3]
    shape = np.frombuffer(content, ">i4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def cifar10(split: str, size: int | None) -> Dataset:
    """CIFAR-10, 3x32x32: the official batches if they are here, otherwise the lossless sample of them."""
    return _cifar("cifar10", split, size)


def cifar100(split: str, size: int | None) -> Dataset:
    """CIFAR-100, fine labels, 3x32x32: the official files if they are here, otherwise the lossless sample."""
    return _cifar("cifar100", split, size)


def _cifar(name: str, split: str, size: int | None) -> Dataset:
    fixed_size(name, 32, size)
    official = located(name, "official", split)
    if official:
        pixels, labels = _official_cifar(name, split, *official.values())
        return _cifar_dataset(name, split, labels, np.arange(len(labels)), pixels)
    sample = required(name, "sample")[f"{name}_sample.npz"]
    with np.load(sample, allow_pickle=False) as arrays:
        labels = arrays[f"{split}_labels" if name == "cifar10" else f"{split}_fine"]
        index = f"{split}_index"
        available = arrays[index].astype(np.int64) if index in arrays else np.arange(len(labels))
    order = np.argsort(available)
    return _cifar_dataset(name, split, labels[order], available[order], sample, order)


def _cifar_dataset(
    name: str,
    split: str,
    labels: np.ndarray,
    available: np.ndarray,
    pixels: np.ndarray | Path,
    order: np.ndarray | None = None,
) -> Dataset:
    def read(rows: np.ndarray) -> torch.Tensor:
        if isinstance(pixels, Path):
            assert order is not None
            return as_images(_array(pixels, f"{split}_images")[order[rows]])
        return as_images(pixels[rows])

    entry = source(name)
    length = entry["length"][split]
    return Dataset(name, split, entry["classes"], (3, 32, 32), length, available, as_labels(labels), read)


@lru_cache(maxsize=8)
def _array(path: Path, name: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[name]


@lru_cache(maxsize=4)
def _official_cifar(name: str, split: str, *batches: Path) -> tuple[np.ndarray, np.ndarray]:
    """All pixels uint8 (N, 3, 32, 32) and labels (N,) of the official pickles, in torchvision's order."""
    parts = [_verified_pickle(name, batch) for batch in batches]
    key = "labels" if name == "cifar10" else "fine_labels"
    pixels = np.concatenate([part["data"].reshape(-1, 3, 32, 32) for part in parts])
    return pixels, np.concatenate([np.asarray(part[key]) for part in parts])


def _verified_pickle(name: str, path: Path) -> dict:
    """A pickle can run any code, so exactly the bytes whose md5 is the official one are unpickled, and no others."""
    content = path.read_bytes()
    files = source(name)["variants"]["official"]["files"]
    expected = next(checksum_of(file)[1] for file in files if file["name"] == path.name)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DataError(f"{path}: md5 expected {expected}, found {found}; not opened")
    return pickle.loads(content, encoding="latin1")


def cifar10_jpeg(split: str, size: int | None) -> Dataset:
    """All CIFAR-10 images as JPEG, for training only (`truth` is False), 3x32x32.

    Positions are not the official ones: the file is sorted by class; here the classes take turns (position modulo 10 is
    the class), so that the first n are balanced.
    """
    fixed_size("cifar10_jpeg", 32, size)
    file = required("cifar10_jpeg", "sample")["cifar10_jpeg_bytes.npz"]
    labels = _array(file, "labels")
    members = np.flatnonzero(_array(file, "is_test").astype(bool) == (split == "test"))
    by_class = members[np.argsort(labels[members], kind="stable")]
    order = by_class.reshape(10, -1).T.reshape(-1)

    def read(rows: np.ndarray) -> torch.Tensor:
        data, offsets = _array(file, "data"), _array(file, "offsets")
        places = order[rows]
        return as_images(np.stack([decoded(data[offsets[i] : offsets[i + 1]].tobytes(), "RGB") for i in places]))

    count = len(order)
    return Dataset(
        "cifar10_jpeg", split, 10, (3, 32, 32), count, np.arange(count), as_labels(labels[order]), read,
        truth=False, copy_of="cifar10",
    )  # fmt: skip


def att_faces(split: str, size: int | None) -> Dataset:
    """AT&T faces, 1x112x92 or 1 x size x size; class = person - 1.

    The people take turns: position modulo 40 is the class. Of each person pictures 1-7 are train and 8-10 test.
    """
    file = required("att_faces", "official")["att_faces.tar"]
    pictures = range(1, 8) if split == "train" else range(8, 11)
    names = [f"s{person}/{picture}.pgm" for picture in pictures for person in range(1, 41)]
    target = (112, 92) if size is None else (size, size)
    labels = np.tile(np.arange(40), len(pictures))

    def read(rows: np.ndarray) -> torch.Tensor:
        with tarfile.open(file) as tar:
            return as_images(np.stack([decoded(_member(tar, names[row]), "L", target) for row in rows]))

    count = len(names)
    return Dataset("att_faces", split, 40, (1, *target), count, np.arange(count), as_labels(labels), read)


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise DataError(f"the archive holds no file {name}")
    return file.read()


def lfw(split: str, size: int | None) -> Dataset:
    """LFW in grey, 1x64x64 (or smaller by `size`); class = rank of the person's name among the 5,616.

    Of a person with n >= 2 pictures the last max(1, n // 4) are test, all others train. Positions follow the names.
    """
    file = required("lfw", "crops")["lfw_gray64.npz"]
    people = [str(name).rsplit("_", 1)[0] for name in _array(file, "names")]
    _, labels, counts = np.unique(people, return_inverse=True, return_counts=True)
    order = np.argsort(_array(file, "names"), kind="stable")
    labels = labels[order]
    number = np.arange(len(labels)) - np.searchsorted(labels, labels)  # pictures of one person, from 0
    held_out = np.where(counts > 1, np.maximum(1, counts // 4), 0)[labels]
    chosen = (number >= counts[labels] - held_out) == (split == "test")
    places = order[chosen]
    side = size or 64

    def read(rows: np.ndarray) -> torch.Tensor:
        return as_images(resized(_array(file, "images")[places[rows]][:, None], (side, side)))

    count = len(places)
    return Dataset("lfw", split, len(counts), (1, side, side), count, np.arange(count), as_labels(labels[chosen]), read)


def lfw_ten(split: str, size: int | None) -> Dataset:
    """The ten people of LFW with most pictures, numbered by name; at positions they take turns, picture by picture.

    Splits are those of `lfw`, whose images these are.
    """
    whole = lfw(split, size)
    people = [str(name).rsplit("_", 1)[0] for name in _array(required("lfw_ten", "crops")["lfw_gray64.npz"], "names")]
    _, counts = np.unique(people, return_counts=True)
    ten = np.sort(np.argsort(-counts, kind="stable")[:10])
    rows = np.flatnonzero(np.isin(whole.labels.numpy(), ten))
    labels = np.searchsorted(ten, whole.labels.numpy()[rows])
    turns = np.arange(len(labels)) - np.searchsorted(labels, labels)  # pictures of one person, from 0
    order = np.lexsort((labels, turns))
    places, count = rows[order], len(rows)

    def read(chosen: np.ndarray) -> torch.Tensor:
        return whole.read(places[chosen])

    everything = np.arange(count)
    return Dataset("lfw_ten", split, 10, whole.shape, count, everything, as_labels(labels[order]), read, copy_of="lfw")
