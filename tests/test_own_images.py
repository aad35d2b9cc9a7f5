"""Images of one's own: read as they are, or refused in plain words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import NOTHING, question, toy, trial

from leakboard.config import Images
from leakboard.config.own import fingerprint
from leakboard.data import DataError, refuse_overlap, select
from leakboard.data.loading import dataset_of
from leakboard.errors import Fault

LABELS = np.array([0, 1] * 6)


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def arrays(path: Path, **changed: np.ndarray | None) -> Path:
    """Twelve grey 4x4 images of two classes; what is None is left out."""
    content = {"images": pixels(12, 4, 4), "labels": LABELS, **changed}
    np.savez(path, **{name: array for name, array in content.items() if array is not None})
    return path


def picture(path: Path, seed: int, shape: tuple[int, ...] = (6, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(*shape, seed=seed)).save(path)
    return path


def pictures(folder: Path, *classes: str, count: int = 4) -> Path:
    for label, name in enumerate(classes):
        for number in range(count):
            picture(folder / name / f"{number}.png", 10 * label + number)
    return folder


def test_a_file_is_read_as_it_is(tmp_path):
    grey, colour = pixels(12, 4, 4), pixels(12, 3, 4, 5) / 255
    small = dataset_of(Images(file=arrays(tmp_path / "a.npz", images=grey), split="train"))
    assert (small.shape, small.classes, small.length) == ((1, 4, 4), 2, 10), "every fourth of a class is test"
    x, y = small.take([0, 6])
    assert np.array_equal(x.numpy(), grey[[0, 8], None].astype(np.float32) / 255) and y.tolist() == [0, 0]
    large = dataset_of(Images(file=arrays(tmp_path / "b.npz", images=colour), split="test"))
    x, y = large.take([0, 1])
    assert np.array_equal(x.numpy(), colour[[6, 7]].astype(np.float32)) and y.tolist() == [0, 1]


def test_a_file_may_say_its_splits(tmp_path):
    split = np.array(["train", "test", "valid"] * 4)
    file = arrays(tmp_path / "a.npz", split=split)
    assert [dataset_of(Images(file=file, split=name)).length for name in ("train", "test", "valid")] == [4, 4, 4]
    x, _ = dataset_of(Images(file=file, split="valid")).take([1])
    assert np.array_equal(x[0].numpy(), pixels(12, 4, 4)[5][None].astype(np.float32) / 255)


def test_classes_of_a_folder_go_by_name_and_take_turns(tmp_path):
    pictures(tmp_path, "b", "a", "c", count=5)
    (tmp_path / "README.md").write_text("no picture")
    (tmp_path / "b" / ".hidden").write_text("no picture")
    train, test = (dataset_of(Images(folder=tmp_path, split=split)) for split in ("train", "test"))
    assert (train.shape, train.classes, train.length, test.length) == ((1, 6, 6), 3, 12, 3)
    assert train.labels.tolist() == [0, 1, 2] * 4 and test.labels.tolist() == [0, 1, 2]
    for dataset, position, path in ((train, 1, "b/0.png"), (train, 9, "a/4.png"), (test, 2, "c/3.png")):
        wanted = np.asarray(Image.open(tmp_path / path), dtype=np.float32)[None] / 255
        assert np.array_equal(dataset.take([position])[0][0].numpy(), wanted), path


def test_folders_above_the_classes_are_splits(tmp_path):
    pictures(tmp_path / "train", "a", "b", "c")
    pictures(tmp_path / "test", "b", "c", count=2)
    train, test = (dataset_of(Images(folder=tmp_path, split=split)) for split in ("train", "test"))
    assert (train.length, test.length, test.classes) == (12, 4, 3) and test.labels.tolist() == [1, 2, 1, 2]


def test_one_colour_picture_makes_all_of_them_coloured(tmp_path):
    picture(pictures(tmp_path, "a", "b") / "b" / "9.jpg", 99, (6, 6, 3))
    images, _ = dataset_of(Images(folder=tmp_path)).take([0])
    assert images.shape == (1, 3, 6, 6) and torch.equal(images[:, 0], images[:, 2])


def test_size_takes_the_largest_centred_square(tmp_path):
    picture(pictures(tmp_path, "a", "b") / "a" / "-.png", 5, (8, 24))
    with pytest.raises(DataError, match=r"-.png is 8x24, .*/\d.png is 6x6; `size`"):
        dataset_of(Images(folder=tmp_path))
    (got,), _ = dataset_of(Images(folder=tmp_path, size=8)).take([0])
    assert np.array_equal(got.numpy(), pixels(8, 24, seed=5)[None, :, 8:16].astype(np.float32) / 255)


def test_the_same_images_by_two_ways_are_the_same_images(tmp_path, monkeypatch):
    """A relative path starts at the checkout; public images that are victims are refused however they are named."""
    for name in ("benchmarks", "baselines"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "benchmarks")
    absolute, relative = Images(folder=pictures(tmp_path / "mine", "a", "b")), Images(folder=Path("mine"))
    assert fingerprint(Path("mine")) == fingerprint(tmp_path / "mine")
    with pytest.raises(DataError, match=r"share 6 images of .*mine"):
        refuse_overlap({"victims": select(absolute), "public images": select(relative)})
    asked = question(data={"folder": "mine"}, public={"folder": str(tmp_path / "mine"), "split": "test", "count": 1})
    with pytest.raises(Fault, match="share"):
        trial(toy(tmp_path, NOTHING), asked)


def deep(folder: Path) -> None:
    Image.fromarray(np.zeros((6, 6), np.uint16)).save(folder / "a" / "0.png")


def cut(folder: Path) -> None:
    whole = (folder / "a" / "0.png").read_bytes()
    (folder / "a" / "0.png").write_bytes(whole[:-30])


# what is done to a good folder -> what the message names
BROKEN = {
    "text": (lambda folder: (folder / "a" / "1.png").write_text("x"), ("a/1.png", "no picture")),
    "cut off": (cut, ("a/0.png", "no whole picture")),
    "16 bits": (deep, ("a/0.png", "I;16", "8 bits")),
    "empty class": (lambda folder: (folder / "c").mkdir(), ("/c holds nothing", "one class")),
    "too deep": (lambda folder: (folder / "a" / "d").mkdir(), ("/a holds the folder d", "one class")),
    "one class": (lambda folder: (folder / "b").rename(folder.with_name("gone")), ("one class, a", "two")),
    "one size": (lambda folder: picture(folder / "b" / "5.png", 1, (7, 6)), ("6x6", "b/5.png is 7x6", "`size`")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_refused_by_name(name, tmp_path):
    folder = pictures(tmp_path / "mine", "a", "b")
    breaks, named = BROKEN[name]
    breaks(folder)
    with pytest.raises(DataError) as caught:
        select(Images(folder=folder)).take()
    assert [word for word in named if word not in str(caught.value)] == [], caught.value


ONES = np.ones((12, 4, 4))
# what is changed in a good file -> what the message names
WRONG = {
    "no labels": ({"labels": None}, ("named arrays are images;", "expected images, labels")),
    "another name": ({"splits": LABELS}, ("images, labels, splits;", "expected images, labels and")),
    "above 1": ({"images": 2 * ONES}, ("from 2 to 2", "[0, 1]")),
    "not a number": ({"images": np.nan * ONES}, ("nan", "[0, 1]")),
    "type": ({"images": ONES.astype(np.int64)}, ("int64", "uint8")),
    "channels last": ({"images": np.ones((12, 4, 4, 3))}, ("(12, 4, 4, 3)", "(N, C, H, W)")),
    "objects": ({"labels": np.array([{}] * 12)}, ("plain arrays", "allow_pickle=False")),
    "too few labels": ({"labels": LABELS[:5]}, ("(5,)", "expected (12,)")),
    "labels in floats": ({"labels": LABELS / 2}, ("float64", "integer")),
    "labels from 1": ({"labels": LABELS + 1}, ("from 1 to 2", "expected 0, 1")),
    "one class": ({"labels": 0 * LABELS}, ("from 0 to 0", "two classes")),
    "numbered splits": ({"split": LABELS}, ("split has shape (12,)", "one word an image")),
    "no such split": ({"split": np.array(["all"] * 12)}, ("'train'", "there are: all")),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_by_name(name, tmp_path):
    changed, named = WRONG[name]
    with pytest.raises(DataError) as caught:
        dataset_of(Images(file=arrays(tmp_path / "mine.npz", **changed)))
    assert [word for word in ("mine.npz", *named) if word not in str(caught.value)] == [], caught.value


def test_what_is_no_file_of_arrays_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("text")
    np.save(tmp_path / "alone.npy", ONES)
    for name, said in (("text.npz", "no .npz"), ("alone.npy", "arrays are none"), ("absent.npz", "there is no file")):
        with pytest.raises(DataError, match=f"{name}.*{said}" if name != "absent.npz" else said):
            dataset_of(Images(file=tmp_path / name))
    with pytest.raises(DataError, match="there is no folder"):
        dataset_of(Images(folder=tmp_path / "text.npz"))
    with pytest.raises(DataError, match="size 9, but its images are 4x4"):
        dataset_of(Images(file=arrays(tmp_path / "a.npz"), size=9))
