"""Large data sets, read straight out of their verified archives, never unpacked: ImageNet, Tiny ImageNet, CelebA."""

from __future__ import annotations

import os
import tarfile
import zipfile
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from leakboard.data.images import Dataset, as_images, as_labels, decoded
from leakboard.data.places import DataError
from leakboard.data.sources import required

# Class indices (rank of the wnid among the sorted 1,000) of the 256 sample photos, in the order of their wnids.
SAMPLE_CLASSES = """
0 2 4 7 8 9 11 14 24 30 33 39 40 41 42 45 50 53 54 64 70 79 82 90 92 94 100 107 112 120 122 125 129 139 140 141 143
144 147 151 153 156 161 164 166 173 176 177 178 183 188 193 194 195 198 201 203 209 215 216 225 229 230 233 235 245
246 250 251 254 257 258 259 260 261 265 274 277 278 292 298 302 304 307 308 316 317 323 325 327 331 332 333 336 338
342 343 347 350 352 354 367 369 376 385 387 389 391 395 397 408 410 415 416 425 431 433 436 440 445 448 449 459 460
466 471 472 480 482 484 486 494 495 503 505 513 518 523 524 528 535 548 549 550 551 555 557 561 570 571 572 583 585
592 605 608 610 612 618 620 626 628 632 642 644 647 649 657 658 661 665 673 676 681 682 683 690 692 698 708 719 720
721 727 732 735 737 745 755 757 768 773 776 778 782 785 794 796 803 812 813 814 815 816 822 823 835 836 840 842 848
850 851 855 861 868 869 879 882 883 886 887 891 894 896 903 904 905 908 909 911 916 918 920 921 927 928 929 931 933
937 939 942 944 947 952 964 968 972 976 979 984 985 990 994 999
"""


def imagenet(split: str, size: int | None) -> Dataset:
    """ImageNet photos, centre-cropped to a square and resized to `size` (224).

    `test` (or `sample`): 256 photos, one for each of 256 classes, in the order of the wnids.
    `val`: the official 50,000 validation photos from the official archives.
    """
    side = size or 224
    if split == "val":
        return _official_imagenet(side)
    file = required("imagenet", "sample", "test")["imagenet_sample.tar"]
    with tarfile.open(file) as tar:
        names = sorted(tar.getnames())
    labels = np.array(SAMPLE_CLASSES.split(), dtype=np.int64)
    return _from_tar(file, names, labels, "test", side)


def _official_imagenet(side: int) -> Dataset:
    files = required("imagenet", "official", "val")
    labels = _validation_classes(files["ILSVRC2012_devkit_t12.tar.gz"])
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(labels) + 1)]
    return _from_tar(files["ILSVRC2012_img_val.tar"], names, labels, "val", side)


def _from_tar(file: Path, names: list[str], labels: np.ndarray, split: str, side: int) -> Dataset:
    def read(rows: np.ndarray) -> torch.Tensor:
        tar = _opened_tar(file, os.getpid())
        photos = []
        for row in rows:
            member = tar.extractfile(names[row])
            if member is None:
                raise DataError(f"{file} holds no file {names[row]}")
            photos.append(decoded(member.read(), "RGB", (side, side)))
        return as_images(np.stack(photos))

    count = len(names)
    return Dataset("imagenet", split, 1000, (3, side, side), count, np.arange(count), as_labels(labels), read)


@lru_cache(maxsize=2)
def _opened_tar(file: Path, process: int) -> tarfile.TarFile:
    """Stays open, its table of members takes seconds to read; one per process, since forks share the position."""
    return tarfile.open(file)


def _validation_classes(devkit: Path) -> np.ndarray:
    """Class (rank of the wnid) of every validation photo: the kit numbers the leaf synsets 1..1000 in another order."""
    from scipy.io import loadmat

    folder = "ILSVRC2012_devkit_t12/data"
    with tarfile.open(devkit) as tar:
        meta, truth = (
            tar.extractfile(f"{folder}/{name}") for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")
        )
        if meta is None or truth is None:
            raise DataError(f"{devkit} lacks meta.mat or the validation ground truth")
        synsets = loadmat(BytesIO(meta.read()), squeeze_me=True)["synsets"]
        numbers = np.array(truth.read().split(), dtype=np.int64)
    leaves = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets if not synset["num_children"]}
    rank = {wnid: place for place, wnid in enumerate(sorted(leaves.values()))}
    return np.array([rank[leaves[number]] for number in numbers])


def tiny_imagenet(split: str, size: int | None) -> Dataset:
    """Tiny ImageNet, 3x64x64 (or `size`); class = rank of the wnid.

    Train positions: wnid by wnid, images 0-499 of each. `test` is its validation images in their official order.
    """
    file = required("tiny_imagenet", "official")["tiny-imagenet-200.zip"]
    folder = "tiny-imagenet-200"
    archive = _opened_zip(file, os.getpid())
    wnids = sorted(archive.read(f"{folder}/wnids.txt").decode().split())
    if split == "train":
        names = [f"{folder}/train/{w}/images/{w}_{number}.JPEG" for w in wnids for number in range(500)]
        labels = np.repeat(np.arange(200), 500)
    else:
        lines = archive.read(f"{folder}/val/val_annotations.txt").decode().splitlines()
        wnid_of = dict(line.split("\t")[:2] for line in lines)
        names = [f"{folder}/val/images/val_{number}.JPEG" for number in range(10_000)]
        labels = np.array([wnids.index(wnid_of[Path(name).name]) for name in names])
    listed = dict(zip(names, labels.tolist(), strict=True))
    return _from_zip("tiny_imagenet", split, file, listed, 200, (size or 64, size or 64))


def celeba(split: str, size: int | None) -> Dataset:
    """CelebA, aligned, 3x218x178 or 3 x size x size; class = identity - 1 (10,177 of them); the official partition.

    No identity is in two splits.
    """
    files = required("celeba", "official")
    identities = _second_column(files["identity_CelebA.txt"])
    parts = _second_column(files["list_eval_partition.txt"])
    wanted = {"train": 0, "val": 1, "test": 2}[split]
    names = [f"img_align_celeba/{name}" for name, part in parts.items() if part == wanted]
    labels = np.array([identities[Path(name).name] - 1 for name in names])
    target = (218, 178) if size is None else (size, size)
    return _from_zip(
        "celeba", split, files["img_align_celeba.zip"], dict(zip(names, labels.tolist(), strict=True)), 10_177, target
    )


def _second_column(file: Path) -> dict[str, int]:
    return {name: int(number) for name, number in (line.split() for line in file.read_text().splitlines() if line)}


@lru_cache(maxsize=2)
def _opened_zip(file: Path, process: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(file)


def _from_zip(
    name: str, split: str, file: Path, listed: dict[str, int], classes: int, target: tuple[int, int]
) -> Dataset:
    """listed: {name in the archive: class}"""
    names = list(listed)

    def read(rows: np.ndarray) -> torch.Tensor:
        archive = _opened_zip(file, os.getpid())
        return as_images(np.stack([decoded(archive.read(names[row]), "RGB", target) for row in rows]))

    count = len(names)
    return Dataset(
        name, split, classes, (3, *target), count, np.arange(count), as_labels(np.array(list(listed.values()))), read
    )
