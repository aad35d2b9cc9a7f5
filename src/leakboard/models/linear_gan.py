"""A generator and a critic of linear layers alone, as small projects on MNIST have them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from leakboard.rng import seeded

LEAK, DROPPED = 0.2, 0.25


class LinearDrawing(nn.Module):
    """Noise (B, noise) -> images (B, C, H, W) in [0, 1] by layers of 128, 256 and 512 units, the latter two normed.

    differs: pixels lie in [0, 1], so a sigmoid ends it where there was a hyperbolic tangent.
    """

    def __init__(self, shape: tuple[int, int, int], noise: int) -> None:
        super().__init__()
        self.noise, self.shape = noise, shape
        self.layers = nn.Sequential(
            nn.Linear(noise, 128),
            nn.LeakyReLU(LEAK),
            nn.Linear(128, 256),
            nn.BatchNorm1d(256),
            nn.LeakyReLU(LEAK),
            nn.Linear(256, 512),
            nn.BatchNorm1d(512),
            nn.LeakyReLU(LEAK),
            nn.Linear(512, math.prod(shape)),
            nn.Sigmoid(),
        )

    def forward(self, noise: Tensor) -> Tensor:
        return self.layers(noise).unflatten(1, self.shape)


class LinearCritic(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> one number each, (B,), by layers of 512 and 256 units with dropout between."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(shape), 512),
            nn.LeakyReLU(LEAK),
            nn.Dropout(DROPPED),
            nn.Linear(512, 256),
            nn.LeakyReLU(LEAK),
            nn.Dropout(DROPPED),
            nn.Linear(256, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(2 * images - 1).flatten()


def linear_drawing(shape: tuple[int, int, int], noise: int, rng: torch.Generator) -> LinearDrawing:
    """An untrained generator, with PyTorch's default initialisation as `rng` draws it."""
    with seeded("drawing", int(torch.randint(2**31, (1,), generator=rng))):
        return LinearDrawing(shape, noise)


def linear_critic(shape: tuple[int, int, int], rng: torch.Generator) -> LinearCritic:
    """An untrained critic, with PyTorch's default initialisation as `rng` draws it."""
    with seeded("critic", int(torch.randint(2**31, (1,), generator=rng))):
        return LinearCritic(shape)
