"""Networks that draw images from noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakboard.rng import seeded


class ImagesAndLabels(nn.Module):
    """Noise (B, noise) -> images (B, C, S, S) in [0, 1] and class shares (B, classes); S is 8, 16, 32, ...

    Ren, Deng and Xie 2022, figure 3: from 4 x 4 on every block doubles the side and halves the channels, with gated
    linear units between. ValueError for other sides.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, noise: int) -> None:
        super().__init__()
        channels, side, _ = shape
        blocks = int(math.log2(side)) - 2
        if blocks < 1 or 4 * 2**blocks != side or shape[2] != side:
            raise ValueError(f"images of {shape[1]}x{shape[2]} pixels; the generator draws squares of 8, 16, 32, ...")
        width = side * 2 ** (blocks - 1)
        self.label = nn.Linear(noise, classes)
        self.start = nn.Sequential(nn.ConvTranspose2d(noise, 2 * width, 4), nn.GLU(1))
        layers: list[nn.Module] = []
        for _ in range(blocks - 1):
            layers += _doubled(width, width // 2)
            width //= 2
        self.blocks = nn.Sequential(*layers, *_doubled(width, channels), nn.Sigmoid())

    def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        return self.blocks(self.start(noise[:, :, None, None])), F.softmax(self.label(noise), 1)


def images_and_labels(shape: tuple[int, ...], classes: int, noise: int, rng: torch.Generator) -> nn.Module:
    """GRNN's generator, with PyTorch's default initialisation as `rng` draws it."""
    with seeded("generator", int(torch.randint(2**31, (1,), generator=rng))):
        return ImagesAndLabels(shape, classes, noise)


def _doubled(before: int, after: int) -> list[nn.Module]:
    """Layers that double the side of `before` channels and leave `after`."""
    convolution = nn.Conv2d(before, 2 * after, 3, padding=1, bias=False)
    return [nn.Upsample(scale_factor=2), convolution, nn.BatchNorm2d(2 * after), nn.GLU(1)]
