"""Convolutional generators and critics in the shape of DCGAN (Radford, Metz and Chintala 2016), for square images.

The generator doubles the side with transposed convolutions of 4x4 and halves the channels each time; the critic is its
mirror. differs: pixels lie in [0, 1], so a sigmoid ends the generator and the critic centres what it is shown; the
critic has no batch norm, which a penalty on the gradient of single images does not allow; sides are 8, 16, 28, 32, 64
and whatever else is 4 to 7 doubled some times.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakboard.rng import seeded

LEAK = 0.2


class Drawing(nn.Module):
    """Noise (B, noise) -> images (B, C, S, S) in [0, 1].

    smooth: whether a binomial filter of 3x3 that nothing trains comes before the sigmoid. Transposed convolutions draw
    in checkerboards, and of a classifier that they are to please nothing takes these away.
    """

    def __init__(self, shape: tuple[int, int, int], noise: int, width: int, smooth: bool = False) -> None:
        super().__init__()
        self.smooth = smooth
        start, doublings = sides(shape)
        channels = width * 2 ** (doublings - 1)
        self.noise, self.form = noise, (channels, start, start)
        self.start = nn.Linear(noise, channels * start * start, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(channels), nn.ReLU()]
        for _ in range(doublings - 1):
            doubled = nn.ConvTranspose2d(channels, channels // 2, 4, stride=2, padding=1, bias=False)
            channels //= 2
            layers += [doubled, nn.BatchNorm2d(channels), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(channels, shape[0], 4, stride=2, padding=1))

    def forward(self, noise: Tensor) -> Tensor:
        drawn = self.layers(self.start(noise).unflatten(1, self.form))
        return (smoothed(drawn) if self.smooth else drawn).sigmoid()


def smoothed(x: Tensor) -> Tensor:
    """(B, C, H, W) under the binomial filter of 3x3, each channel by itself; the border is repeated outwards."""
    row = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
    weight = (row[:, None] * row).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight, groups=x.shape[1])


class Critic(nn.Module):
    """Images (B, C, S, S) in [0, 1] -> one number each, (B,): how much they look like what it was trained on."""

    def __init__(self, shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        start, doublings = sides(shape)
        layers: list[nn.Module] = []
        before = shape[0]
        for level in range(doublings):
            after = width * 2**level
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(LEAK)]
            before = after
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * start * start, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(2 * images - 1).flatten()

    def features(self, images: Tensor) -> Tensor:
        """What its last layer decides by, (B, features)."""
        return self.layers[:-1](2 * images - 1)


class Prior(nn.Module):
    """A trained generator, noise (B, noise) -> images (B, C, S, S) in [0, 1], with the critic of its images.

    One that completes is given, beside the noise, what it shall complete, (B, C, S, S).
    """

    def __init__(self, drawing: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.drawing, self.critic = drawing, critic
        self.noise = int(drawing.noise)  # type: ignore[arg-type]

    def forward(self, noise: Tensor, *given: Tensor) -> Tensor:
        return self.drawing(noise, *given)


def sides(shape: tuple[int, int, int]) -> tuple[int, int]:
    """(side that drawing starts from, how often it is doubled); ValueError for images that it does not lead to."""
    start, doublings = shape[1], 0
    while start % 2 == 0 and start > 7:
        start, doublings = start // 2, doublings + 1
    if shape[1] != shape[2] or not (4 <= start <= 7 and doublings):
        raise ValueError(
            f"images of {shape[1]}x{shape[2]} pixels; the generator draws squares of 8, 16, 28, 32, 64, ... "
            "(4 to 7, doubled)"
        )
    return start, doublings


def drawing(shape: tuple[int, int, int], noise: int, width: int, rng: torch.Generator, smooth: bool = False) -> Drawing:
    """An untrained generator, with PyTorch's default initialisation as `rng` draws it."""
    with seeded("drawing", int(torch.randint(2**31, (1,), generator=rng))):
        return Drawing(shape, noise, width, smooth)


def critic(shape: tuple[int, int, int], width: int, rng: torch.Generator) -> Critic:
    """An untrained critic, with PyTorch's default initialisation as `rng` draws it."""
    with seeded("critic", int(torch.randint(2**31, (1,), generator=rng))):
        return Critic(shape, width)
