"""Data sets: shapes, ranges, splits, official positions, checksums; partitions among clients."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from leakboard.data import DataError, dataset, local, partition, photos, places, sources
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


@pytest.fixture
def private_root(tmp_path, monkeypatch) -> Path:
    """An empty data root; checksum memory stays inside it."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("LEAKBOARD_DATA", str(root))
    monkeypatch.setattr(places, "_memory_file", lambda: tmp_path / "build" / "verified.json")
    return root


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


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_damaged_file_is_never_used(real_data, private_root, damage):
    (private_root / "mnist").mkdir()
    for file in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        shutil.copyfile(real_data / "mnist" / file, private_root / "mnist" / file)
    assert dataset("mnist").length == 10_000
    places._digest_by_key.cache_clear()
    assert "t10k-labels" in (private_root.parent / "build" / "verified.json").read_text()
    labels = private_root / "mnist" / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(labels.read_bytes())
    content[100] ^= 1
    labels.write_bytes(content if damage == "flip" else content[:-10])
    from leakboard.data import loading

    loading._loaded.cache_clear()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz.*sha256 expected f7ae60f9\w*, found \w{64}"):
        dataset("mnist")
    rows = {Path(file).name: ok for file, _, _, ok in sources.verify("mnist")}
    assert rows["t10k-images-idx3-ubyte.gz"] and not rows["t10k-labels-idx1-ubyte.gz"]
    assert not rows["train-images-idx3-ubyte.gz"]


def test_a_foreign_pickle_is_not_opened(private_root, tmp_path, monkeypatch):
    folder = private_root / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "test_batch").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match=r"test_batch.*md5 expected 40351d58"):
        dataset("cifar10")
    with pytest.raises(DataError, match="not opened"):
        local._verified_pickle("cifar10", folder / "test_batch")


def test_official_cifar_layout(private_root, monkeypatch):
    """The loader on a small stand-in of the official layout, its md5 put into the sources."""
    import hashlib
    import pickle

    folder = private_root / "cifar-100-python"
    folder.mkdir()
    pixels = np.arange(3 * 3072, dtype=np.int64).reshape(3, 3072) % 256
    content = pickle.dumps({"data": pixels.astype(np.uint8), "fine_labels": [5, 0, 99]})
    (folder / "test").write_bytes(content)
    entry = sources.source("cifar100")
    file = next(f for f in entry["variants"]["official"]["files"] if f["name"] == "test")
    monkeypatch.setitem(file, "md5", hashlib.md5(content).hexdigest())
    images, labels = dataset("cifar100").take([2, 0])
    assert labels.tolist() == [99, 5]
    assert images[1, 0, 0, :3].mul(255).round().tolist() == [0, 1, 2]


def picture(shade: int, size=(64, 64)) -> bytes:
    """A plain grey JPEG."""
    from PIL import Image

    with io.BytesIO() as file:
        Image.new("RGB", size, (shade,) * 3).save(file, "JPEG")
        return file.getvalue()


def test_tiny_imagenet_layout(private_root, monkeypatch):
    folder = "tiny-imagenet-200"
    wnids = [f"n{number:08d}" for number in range(200)]
    with zipfile.ZipFile(private_root / f"{folder}.zip", "w") as archive:
        archive.writestr(f"{folder}/wnids.txt", "\n".join(reversed(wnids)))
        lines = [f"val_{number}.JPEG\t{wnids[number % 200]}\t0\t0\t9\t9" for number in range(10_000)]
        archive.writestr(f"{folder}/val/val_annotations.txt", "\n".join(lines))
        archive.writestr(f"{folder}/val/images/val_7.JPEG", picture(51))
        archive.writestr(f"{folder}/train/{wnids[1]}/images/{wnids[1]}_0.JPEG", picture(102))
    trusted(monkeypatch, "tiny_imagenet", private_root)
    images, labels = dataset("tiny_imagenet").take([7])
    assert labels.tolist() == [7] and images.shape == (1, 3, 64, 64) and abs(images.mean() - 0.2) < 0.01
    images, labels = dataset("tiny_imagenet", "train", 32).take([500])
    assert labels.tolist() == [1] and images.shape == (1, 3, 32, 32) and abs(images.mean() - 0.4) < 0.01


def test_celeba_layout(private_root, monkeypatch):
    folder = private_root / "celeba"
    folder.mkdir()
    (folder / "identity_CelebA.txt").write_text("000001.jpg 2880\n000002.jpg 2937\n000003.jpg 1\n")
    (folder / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 2\n000003.jpg 0\n")
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for number in (1, 2, 3):
            archive.writestr(f"img_align_celeba/{number:06d}.jpg", picture(51 * number, (178, 218)))
    trusted(monkeypatch, "celeba", folder)
    train, test = dataset("celeba", "train"), dataset("celeba", "test", 32)
    assert train.labels.tolist() == [2879, 0] and test.labels.tolist() == [2936]
    assert train.take([1])[0].shape == (1, 3, 218, 178) and test.take([0])[0].shape == (1, 3, 32, 32)
    assert abs(train.take([1])[0].mean() - 0.6) < 0.01


def test_official_imagenet_layout(private_root, monkeypatch):
    """The kit's own numbering is not the rank of the wnid; inner synsets (with children) are no classes."""
    from scipy.io import savemat

    folder = private_root / "imagenet"
    folder.mkdir()
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("num_children", "f8")]
    rows = [(1, "n03", 0), (2, "n01", 0), (3, "n02", 0), (4, "n00", 3)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=kinds)})
    kit = "ILSVRC2012_devkit_t12/data"
    truth = f"{kit}/ILSVRC2012_validation_ground_truth.txt"
    pack(folder / "ILSVRC2012_devkit_t12.tar.gz", {f"{kit}/meta.mat": meta.getvalue(), truth: b"3\n1\n"}, "w:gz")
    photos_in = {f"ILSVRC2012_val_{number:08d}.JPEG": picture(102 * number, (80, 64)) for number in (2, 1)}
    pack(folder / "ILSVRC2012_img_val.tar", photos_in, "w")
    trusted(monkeypatch, "imagenet", folder)
    images, labels = dataset("imagenet", "val", 32).take([0, 1])
    assert labels.tolist() == [1, 2] and images.shape == (2, 3, 32, 32)
    assert images.mean((1, 2, 3)).sub(torch.tensor([0.4, 0.8])).abs().max() < 0.01


def pack(path, members, mode):
    """A tar archive of name -> bytes."""
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            information = tarfile.TarInfo(name)
            information.size = len(content)
            tar.addfile(information, io.BytesIO(content))


def trusted(monkeypatch, name, folder):
    """Put the md5 sums of the stand-in files into the sources."""
    for file in sources.source(name)["variants"]["official"]["files"]:
        monkeypatch.setitem(file, "md5", places.digest(folder / file["name"], "md5"))


def test_sources_are_complete():
    with Path(places.repo_root() / "datasets" / "sources.toml").open("rb") as file:
        written = tomllib.load(file)
    from leakboard.data.loading import LOADERS

    assert set(sources.sources()) == set(LOADERS) == set(written) - {"weights"}
    for name, entry in sources.sources().items():
        assert {"title", "origin", "licence", "citation", "classes", "shape", "length", "variants"} <= set(entry), name
        for variant in entry["variants"].values():
            assert all(len(sources.checksum_of(file)[1]) in (32, 64) for file in variant["files"])
    assert not list((places.repo_root() / "datasets").glob("*.py"))


def test_verify_and_listing(real_data):
    rows = {row["name"]: row for row in sources.listing()}
    assert [rows[name]["state"] for name in ("digits", "photos", "faces", "mnist")] == ["here"] * 4
    for name in ("digits", "photos", "mnist", "att_faces", "resnet20_cifar10"):
        assert all(ok for *_, ok in sources.verify(name)), name
    for name in ("resnet20_cifar10", "resnet56_cifar10", "lpips_squeeze_backbone", "squeezenet1_1", "dncnn_gray25"):
        assert weights_file(name).is_file()


def test_fetch_verifies_before_it_renames(private_root, tmp_path, monkeypatch):
    right, wrong = tmp_path / "right.gz", tmp_path / "wrong.gz"
    right.write_bytes(gzip.compress(b"right"))
    wrong.write_bytes(b"wrong")
    expected = places.digest(right, "sha256")
    target = private_root / "some" / "file.gz"
    with pytest.raises(DataError, match=f"sha256 expected {expected}, found"):
        sources.download([wrong.as_uri()], target, "sha256", expected)
    assert not list(target.parent.iterdir())
    assert sources.download([wrong.as_uri(), right.as_uri()], target, "sha256", expected) == target
    assert [path.name for path in target.parent.iterdir()] == ["file.gz"]


def test_fetch_without_network_is_clear(private_root, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(sources.urllib.request, "urlopen", refuse)
    with pytest.raises(DataError, match=r"could not fetch train-images-idx3-ubyte.gz: .*no network"):
        sources.fetch("mnist")
    with pytest.raises(DataError, match="register at the origin"):
        sources.fetch("imagenet")
    sources.fetch("digits")


def test_checksum_memory_notices_change(private_root):
    file = private_root / "file"
    file.write_bytes(b"one")
    first = places.known_digest(file, "sha256")
    assert first in json.loads((private_root.parent / "build" / "verified.json").read_text()).values()
    file.write_bytes(b"three")
    assert places.known_digest(file, "sha256") != first


def test_ranges():
    assert ranges(np.array([3, 1, 2, 9])) == "1-3, 9"
    assert ranges(np.arange(0, 20, 2)) == "0, 2, 4, 6 and 6 more"


# ---- partitions

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
