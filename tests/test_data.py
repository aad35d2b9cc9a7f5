"""Data sets: shapes, ranges, splits, official positions, checksums; partitions among clients."""

from __future__ import annotations

import tarfile
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from leakboard.config import Images, root
from leakboard.data import DataError, dataset, photos, refuse_overlap, select, sources
from leakboard.data.images import ranges
from leakboard.data.weights import weights_file

BUNDLED = [
    ("digits", None, 10, (1, 8, 8), {"train": 1352, "test": 445}),
    ("faces", None, 2, (1, 25, 25), {"train": 140, "test": 60}),
    ("photos", 16, 10, (3, 16, 16), {"train": 1000, "test": 120}),
    ("photos", None, 10, (3, 32, 32), {"train": 1000, "test": 120}),
    ("photos", 64, 10, (3, 64, 64), {"train": 1000, "test": 120}),
]
OFFICIAL_FIRST = {  # the first labels of the official test sets, as published
    "mnist": [7, 2, 1, 0, 4, 1, 4, 9, 5, 9],
    "cifar10": [3, 8, 8, 0, 6, 6, 1, 6, 3, 1],
    "cifar100": [49, 33, 72, 51, 71, 92, 15, 14, 23, 0],
}


def check_images(data, count=12):
    """The promises of `Dataset.take`, on the first available images."""
    positions = data.available[:count]
    images, labels = data.take(positions)
    assert images.shape == (len(positions), *data.shape) and images.dtype == torch.float32
    assert labels.dtype == torch.int64 and labels.tolist() == data.labels[: len(positions)].tolist()
    assert 0 <= images.min() < images.max() <= 1
    assert data.labels.min() >= 0 and data.labels.max() < data.classes
    assert len(data.labels) == len(data.available) <= data.length
    assert (np.diff(data.available) > 0).all()
    again, _ = data.take(list(positions[::-1]))
    assert torch.equal(again.flip(0), images)
    assert data.take([])[0].shape == (0, *data.shape)


@pytest.mark.parametrize(("name", "size", "classes", "shape", "lengths"), BUNDLED)
def test_bundled(name, size, classes, shape, lengths):
    for split, length in lengths.items():
        data = dataset(name, split, size)
        assert (data.classes, data.shape, data.length, data.truth) == (classes, shape, length, True)
        assert len(data.available) == length
        assert set(data.labels.tolist()) == set(range(classes))
        check_images(data)
        assert dataset(name, split, size) is data


@pytest.mark.parametrize("name", ["digits", "faces"])
def test_bundled_splits_share_no_image(name):
    train, test = (dataset(name, split) for split in ("train", "test"))
    distances = torch.cdist(*(data.take(range(data.length))[0].flatten(1) for data in (train, test)))
    faces_or_all = slice(None) if name == "digits" else test.labels == 1  # background patches can be plain black
    assert distances[:, faces_or_all].min() > 0


def test_faces_come_first():
    assert dataset("faces", "test").labels.tolist() == [1] * 30 + [0] * 30


@pytest.mark.parametrize("side", photos.SIZES)
def test_photos_share_no_pixel(side):
    files = {}
    for package in ("sklearn", "skimage", "matplotlib"):
        files |= sources.required("photos", f"in_{package}")
    for photo in photos.PHOTOGRAPHS:
        pixels = photos.scaled(photo, files[photo.file], side)
        used = {}
        for split, count in photos.PER_CLASS.items():
            used[split] = np.zeros(pixels.shape[:2], dtype=bool)
            corners = photos.corners_of(pixels, photo, split, side)
            assert len(np.unique(corners, axis=0)) == count
            for top, left in corners:
                used[split][top : top + side, left : left + side] = True
        assert not (used["train"] & used["test"]).any(), photo.name


def test_photos_are_rich_and_balanced():
    test, train = dataset("photos", "test"), dataset("photos", "train")
    for data, least in ((test, 0.04), (train, 0.02)):
        assert data.labels[:30].tolist() == list(range(10)) * 3
        images, _ = data.take(range(data.length))
        assert images.mean(1).flatten(1).std(1).min() > least
    distances = torch.cdist(test.take(range(120))[0].flatten(1), train.take(range(1000))[0].flatten(1))
    assert (distances / 3072**0.5).min() > 0.02  # no test crop is nearly a training crop


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_official_order(real_data, name):
    data = dataset(name, "test")
    _, labels = data.take(range(10))
    assert labels.tolist() == OFFICIAL_FIRST[name]
    assert data.length == 10_000 and data.truth
    for split in ("train", "test"):
        check_images(dataset(name, split))


def test_mnist_is_complete(real_data):
    data = dataset("mnist", "train")
    assert len(data.available) == 60_000
    assert torch.bincount(data.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_partial_sample_serves_official_positions(real_data):
    data = dataset("cifar10", "train")
    if len(data.available) == data.length:
        pytest.skip("CIFAR-10 is complete here")
    with np.load(real_data / "cifar10_sample" / "cifar10_sample.npz") as arrays:
        every_label = np.concatenate([arrays[f"labels_data_batch_{batch}"] for batch in range(1, 6)])
        stored = arrays["train_images"][5]
    assert (every_label[data.available] == data.labels.numpy()).all()
    assert torch.equal(data.take([int(data.available[5])])[0][0], torch.from_numpy(stored).float() / 255)
    with pytest.raises(DataError, match=r"cifar10 test: position 1017-1019 is not here.*LEAKBOARD_DATA.*fetch cifar10"):
        dataset("cifar10", "test").take(range(1010, 1020))
    with pytest.raises(DataError, match="no position 10000"):
        dataset("cifar10", "test").take([10_000])


@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [
        ("cifar10_jpeg", None, (3, 32, 32)),
        ("att_faces", None, (1, 112, 92)),
        ("att_faces", 64, (1, 64, 64)),
        ("lfw", None, (1, 64, 64)),
        ("lfw", 32, (1, 32, 32)),
        ("lfw_ten", 32, (1, 32, 32)),
    ],
)
def test_other_real_sets(real_data, name, size, shape):
    lengths = sources.source(name)["length"]
    for split in ("train", "test"):
        data = dataset(name, split, size)
        assert data.shape == shape and data.length == lengths[split]
        assert data.truth == (name != "cifar10_jpeg")
        check_images(data, 4)


def test_lfw_splits_by_picture(real_data):
    train, test = dataset("lfw", "train"), dataset("lfw", "test")
    assert train.length + test.length == 12_794
    assert set(test.labels.tolist()) <= set(train.labels.tolist())


def test_fewer_images_than_asked_for_are_refused():
    """Else two trainings on different images bore one name."""
    few = {"name": "digits", "classes": [2, 3, 4], "start": 100}
    found = len(select(Images(**few)).positions)
    assert len(select(Images(**few, count=found)).positions) == found
    words = f"has {found + 100} images here of classes 2-4; {found} are left from 100 on, expected {found + 1}"
    with pytest.raises(DataError, match=words):
        select(Images(**few, count=found + 1))


def test_ten_people_take_turns(real_data):
    """They are those of LFW with most pictures, whose images these are; priors of their boards show nobody of them."""
    from leakboard import config

    whole, ten = dataset("lfw", "test", 32), dataset("lfw_ten", "test", 32)
    counts = torch.bincount(torch.cat([dataset("lfw", split).labels for split in ("train", "test")]))
    people = counts.argsort(descending=True, stable=True)[:10].sort().values
    assert ten.labels[:20].tolist() == [*range(10), *range(10)]
    for label, person in enumerate(people.tolist()):
        mine = ten.take(ten.available[ten.labels.numpy() == label])[0]
        assert torch.equal(mine, whole.take(whole.available[whole.labels.numpy() == person])[0])
    for name in ("lenet_lfw_gradient_none", "resnet18_lfw_gradient_none"):
        asked = config.benchmark(name, "paper")
        shown = select(asked.public_images).take()[1]
        assert not set(shown.tolist()) & set(people.tolist()) and len(shown) == asked.public.count
        others = asked.public_images.model_copy(update={"split": "test", "count": None})
        with pytest.raises(DataError, match="the split test of lfw"):
            refuse_overlap({"a": select(asked.data), "b": select(others)})


def test_imagenet_sample_labels(real_data):
    from torchvision.models import SqueezeNet1_1_Weights

    data = dataset("imagenet", "sample", 64)
    check_images(data, 3)
    with tarfile.open(real_data / "imagenet_sample" / "imagenet_sample.tar") as tar:
        names = sorted(tar.getnames())
    categories = SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"]
    plain = ["".join(filter(str.isalnum, text.lower())) for text in categories]
    for name, label in zip(names, data.labels.tolist(), strict=True):
        assert "".join(filter(str.isalnum, name[10:-5].lower())) == plain[label]


def test_unknown_names():
    for arguments, message in [
        (("nothing",), "no data set named"),
        (("digits", "val"), "no split"),
        (("digits", "test", 9), "8 pixels only"),
        (("photos", "test", 40), "not 40"),
    ]:
        with pytest.raises(DataError, match=message):
            dataset(*arguments)


def test_absent_says_how_to_get_it(private_root):
    for name in ("mnist", "cifar10", "celeba", "tiny_imagenet", "att_faces"):
        with pytest.raises(DataError, match=f"{name}.* is not here.*LEAKBOARD_DATA.*leakboard data fetch {name}"):
            dataset(name)
        assert sources.state(name) == "absent"
        assert not any(ok for *_, ok in sources.verify(name))
    with pytest.raises(DataError, match="LEAKBOARD_DATA"):
        weights_file("dncnn_gray25")


def test_sources_are_complete():
    with Path(root() / "datasets" / "sources.toml").open("rb") as file:
        written = tomllib.load(file)
    from leakboard.data.loading import LOADERS

    assert set(sources.sources()) == set(LOADERS) == set(written) - {"weights"}
    for name, entry in sources.sources().items():
        assert {"title", "origin", "licence", "citation", "classes", "shape", "length", "variants"} <= set(entry), name
        for variant in entry["variants"].values():
            assert all(len(sources.checksum_of(file)[1]) in (32, 64) for file in variant["files"])
    assert not list((root() / "datasets").glob("*.py"))


def test_verify_and_listing(real_data):
    rows = {row["name"]: row for row in sources.listing()}
    assert [rows[name]["state"] for name in ("digits", "photos", "faces", "mnist")] == ["here"] * 4
    for name in ("digits", "photos", "mnist", "att_faces", "resnet20_cifar10"):
        assert all(ok for *_, ok in sources.verify(name)), name
    for name in ("resnet20_cifar10", "resnet56_cifar10", "lpips_squeeze_backbone", "squeezenet1_1", "dncnn_gray25"):
        assert weights_file(name).is_file()


def test_ranges():
    assert ranges(np.array([3, 1, 2, 9])) == "1-3, 9"
    assert ranges(np.arange(0, 20, 2)) == "0, 2, 4, 6 and 6 more"
