"""`dataset(name, split, size)` and `dataset_of(images)`: the one door to every data set."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from leakboard.config.sections import Images
from leakboard.data import archives, bundled, local, photos
from leakboard.data.images import Dataset, framed
from leakboard.data.own import own_dataset
from leakboard.data.places import DataError, data_root
from leakboard.data.sources import source

# name -> function (split, size or None) -> Dataset
LOADERS: dict[str, Callable[[str, int | None], Dataset]] = {
    "digits": bundled.digits,
    "photos": photos.photos,
    "faces": bundled.faces,
    "mnist": local.mnist,
    "cifar10": local.cifar10,
    "cifar10_jpeg": local.cifar10_jpeg,
    "cifar100": local.cifar100,
    "att_faces": local.att_faces,
    "lfw": local.lfw,
    "lfw_ten": local.lfw_ten,
    "imagenet": archives.imagenet,
    "tiny_imagenet": archives.tiny_imagenet,
    "celeba": archives.celeba,
}


def dataset(name: str, split: str = "test", size: int | None = None) -> Dataset:
    """One split of a data set; `size` is the side in pixels where the data set can be had at several sizes.

    Cheap to call again. Raises DataError for an unknown name, split or size, and when the data is absent or damaged.
    """
    splits = list(source(name)["length"])
    if split not in splits and not (name == "imagenet" and split == "sample"):
        raise DataError(f"data set {name} has no split {split!r}; there are {', '.join(splits)}")
    return _loaded(name, split, size, str(data_root()))


def dataset_of(images: Images) -> Dataset:
    """The split that a section names, of a data set or of a file or folder of one's own. DataError as `dataset`."""
    if images.unnamed:
        raise DataError(f"{images} names no data set")
    if isinstance(images.size, tuple):
        return _framed(dataset_of(images.model_copy(update={"size": None})), images.size)
    if images.name is None:
        return own_dataset(images)
    return dataset(images.name, images.split, images.size)


@lru_cache(maxsize=32)
def _framed(whole: Dataset, size: tuple[int, int]) -> Dataset:
    return framed(whole, size)


@lru_cache(maxsize=32)
def _loaded(name: str, split: str, size: int | None, root: str) -> Dataset:
    return LOADERS[name](split, size)
