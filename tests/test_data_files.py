"""Files that may or may not be trusted: damage, foreign pickles, the official layouts, downloads."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leakboard.data import DataError, dataset, loading, local, places, sources
from leakboard.data.images import decoded


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


@pytest.mark.parametrize("height", [225, 232, 253, 256, 300, 450, 499])
def test_any_photograph_is_cropped_and_resized(height):
    """Rounding must not put the crop outside of the picture."""
    for width in (256, 450, 499):
        buffer = io.BytesIO()
        Image.new("RGB", (width, height), (10, 20, 30)).save(buffer, "PNG")
        got = decoded(buffer.getvalue(), "RGB", (224, 224))
        assert got.shape == (3, 224, 224) and (got == np.array([10, 20, 30], np.uint8)[:, None, None]).all()
