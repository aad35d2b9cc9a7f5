"""What a data set is to the rest of the house: images that are asked for by their official positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from leakboard.data.places import DataError
from leakboard.data.sources import how_to_get


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set, possibly present in part; pixels are loaded when they are first taken.

    `length` is the official number of images; `available` (N,) the official positions that are here, ascending;
    `labels` (N,) int64 the classes of the available images, in the same order. `truth` is False where the pixels are a
    lossy copy: good for training, never the ground truth of a reconstruction.
    """

    name: str
    split: str
    classes: int
    shape: tuple[int, int, int]
    length: int
    available: np.ndarray
    labels: Tensor
    read: Callable[[np.ndarray], Tensor] = field(repr=False)  # rows of `available` -> (N, C, H, W) float32 in [0, 1]
    truth: bool = True
    copy_of: str | None = None  # the data set whose images these are, where it is another one's

    @property
    def origin(self) -> str:
        return self.copy_of or self.name

    def take(self, positions: Sequence[int] | np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) float32 in [0, 1] and labels (N,) int64 at these official positions, in this order.

        Raises DataError when a position lies outside the split or is not among the available ones.
        """
        wanted = np.asarray(positions, dtype=np.int64).reshape(-1)
        outside = wanted[(wanted < 0) | (wanted >= self.length)]
        if len(outside):
            raise DataError(f"{self.name} {self.split} has {self.length} images, no position {ranges(outside)}")
        missing = np.setdiff1d(wanted, self.available)
        if len(missing):
            raise DataError(
                f"{self.name} {self.split}: position {ranges(missing)} is not here "
                f"({len(self.available):,} of {self.length:,} images are: {ranges(self.available)}). "
                f"{how_to_get(self.name)}"
            )
        rows = np.searchsorted(self.available, wanted)
        labels = self.labels[torch.from_numpy(rows)]
        if not len(rows):
            return torch.zeros(0, *self.shape), labels
        return self.read(rows), labels


def ranges(positions: np.ndarray, most: int = 4) -> str:
    """Positions as short text: `0-1016, 2000`; after `most` runs the rest is a count."""
    ordered = np.unique(positions)
    runs = np.split(ordered, np.flatnonzero(np.diff(ordered) > 1) + 1)
    shown = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs[:most]]
    rest = sum(len(run) for run in runs[most:])
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")


def as_images(pixels: np.ndarray) -> Tensor:
    """uint8 (N, C, H, W) in 0..255 -> float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).float().div_(255)


def as_labels(labels: np.ndarray) -> Tensor:
    """Any integer array (N,) -> int64 tensor."""
    return torch.from_numpy(np.asarray(labels).astype(np.int64))


def decoded(encoded: bytes, mode: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """An encoded image file as uint8 (C, H, W); `mode` is `L` or `RGB`, size (H, W) resizes after a centre crop.

    The crop is the largest centred one with the target's proportions; the resize is antialiased bilinear.
    """
    from PIL import Image

    with Image.open(BytesIO(encoded)) as opened:
        image = opened.convert(mode)
    return _channels_first(np.asarray(_fitted(image, size)))


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (N, 1, H, W) -> (N, 1, *size) as `decoded` does; a no-op when the size fits."""
    if pixels.shape[-2:] == size:
        return pixels
    from PIL import Image

    return np.stack([np.asarray(_fitted(Image.fromarray(image[0]), size))[None] for image in pixels])


def framed(whole: Dataset, size: tuple[int, int]) -> Dataset:
    """The same images at size (H, W): the largest centred part with its proportions, resized as `decoded` does."""

    def read(rows: np.ndarray) -> Tensor:
        images = whole.read(rows)
        scale = min(side / wanted for side, wanted in zip(images.shape[2:], size, strict=True))
        height, width = (max(1, round(side * scale)) for side in size)
        top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
        part = images[:, :, top : top + height, left : left + width]
        return F.interpolate(part, size=size, mode="bilinear", antialias=True).clamp(0, 1)

    return replace(whole, shape=(whole.shape[0], *size), read=read)


def _fitted(image, size: tuple[int, int] | None):
    """The largest centred crop with the proportions of size (H, W), resized to it."""
    if size is None or (image.height, image.width) == size:
        return image
    scale = min(image.height / size[0], image.width / size[1])
    height, width = size[0] * scale, size[1] * scale
    top, left = max(0, (image.height - height) / 2), max(0, (image.width - width) / 2)  # rounding goes below 0
    from PIL import Image

    bilinear = Image.Resampling.BILINEAR
    right, bottom = min(left + width, image.width), min(top + height, image.height)
    return image.resize((size[1], size[0]), bilinear, box=(left, top, right, bottom))


def _channels_first(pixels: np.ndarray) -> np.ndarray:
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
