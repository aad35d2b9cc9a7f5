"""A generator that completes images: noise says what the degraded image that it is given leaves open."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from leakboard.models.dcgan import LEAK
from leakboard.rng import seeded


class Completing(nn.Module):
    """Noise (B, noise) and degraded images (B, C, S, S) -> whole images (B, C, S, S) in [0, 1]; S a multiple of 4.

    GMI's two branches (Zhang et al. 2020, section 3.1): what context and identity say meets at a quarter of the side.
    differs: smaller; one dilated convolution in place of four, and one linear layer draws the identity.
    """

    def __init__(self, shape: tuple[int, int, int], noise: int, width: int) -> None:
        super().__init__()
        channels, quarter, inner = shape[0], shape[1] // 4, 2 * width
        self.noise, self.form = noise, (inner, quarter, quarter)
        self.start = nn.Linear(noise, inner * quarter * quarter, bias=False)
        self.identity = nn.Sequential(nn.BatchNorm2d(inner), nn.ReLU())
        self.context = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(width, inner, 4, stride=2, padding=1),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(inner, inner, 3, padding=2, dilation=2),
            nn.LeakyReLU(LEAK),
        )
        self.layers = nn.Sequential(
            nn.Conv2d(2 * inner, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.ConvTranspose2d(inner, width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
        )

    def forward(self, noise: Tensor, given: Tensor) -> Tensor:
        identity = self.identity(self.start(noise).unflatten(1, self.form))
        return self.layers(torch.cat([identity, self.context(2 * given - 1)], 1)).sigmoid()


def completing(shape: tuple[int, int, int], noise: int, width: int, rng: torch.Generator) -> Completing:
    """An untrained one, with PyTorch's default initialisation as `rng` draws it; ValueError for other sides."""
    if shape[1] != shape[2] or shape[1] % 4:
        raise ValueError(f"images of {shape[1]}x{shape[2]} pixels; squares are completed whose side is a multiple of 4")
    with seeded("completing", int(torch.randint(2**31, (1,), generator=rng))):
        return Completing(shape, noise, width)
