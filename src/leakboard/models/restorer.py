"""Small networks that restore images of any size: what they add is their guess of what these lost.

And the critic that tells restored images from clean ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakboard.rng import seeded


class Restoring(nn.Module):
    """Degraded images (B, C, H, W) in [0, 1] -> restored ones of the same shape; clamped to [0, 1] in eval mode."""

    def __init__(self, form: str, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(BLOCKS[form](width) for _ in range(depth))
        self.leave = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)  # training starts from the degraded image as it is
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.enter(images))
        for block in self.blocks:
            features = features + block(features)
        restored = images + self.leave(features)
        return restored if self.training else restored.clamp(0, 1)


class Gated(nn.Module):
    """What NAFNet's block adds to features (B, width, H, W) (Chen et al. 2022, figure 3c).

    Two halves of the channels are multiplied in place of an activation; once spatially mixed, each channel is weighted
    by a linear map of the channels' means.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, width), nn.GroupNorm(1, width)
        self.mix = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1), nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        )
        self.weigh, self.out = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.widen, self.narrow = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(width, width, 1)
        self.beta = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        mixed = _gate(self.mix(self.norm1(features)))
        mixed = self.beta * self.out(mixed * self.weigh(mixed.mean((2, 3), keepdim=True)))
        return mixed + self.gamma * self.narrow(_gate(self.widen(self.norm2(features + mixed))))


def _gate(features: Tensor) -> Tensor:
    one, other = features.chunk(2, 1)
    return one * other


def _residual(width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))


BLOCKS: dict[str, Callable[[int], nn.Module]] = {"residual": _residual, "nafnet": Gated}


def restoring(form: str, channels: int, width: int, depth: int, rng: torch.Generator) -> Restoring:
    """An untrained network of so many blocks, `residual` or `nafnet`, with PyTorch's initialisation as `rng` draws it.

    differs from NAFNet: one resolution throughout, because the images are small; all features normalised as one group.
    """
    with seeded("restoring", int(torch.randint(2**31, (1,), generator=rng))):
        return Restoring(form, channels, width, depth)


class Denoising(nn.Module):
    """DnCNN (Zhang et al. 2017): images (B, C, H, W) in [0, 1] -> these less the noise it sees, in [0, 1].

    Seventeen convolutions of 64 channels, of one grey image at a time. Parameter names are those of the public weights.
    """

    def __init__(self) -> None:
        super().__init__()
        middle = [layer for _ in range(15) for layer in (nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())]
        ends = nn.Conv2d(1, 64, 3, padding=1), nn.Conv2d(64, 1, 3, padding=1)
        self.model = nn.Sequential(ends[0], nn.ReLU(), *middle, ends[1])

    def forward(self, images: Tensor) -> Tensor:
        grey = images.flatten(0, 1)[:, None]
        return (grey - self.model(grey)).view_as(images).clamp(0, 1)


def critic(channels: int, width: int, rng: torch.Generator) -> nn.Module:
    """Images (B, C, H, W) -> logits (B, 1, H / 2, W / 2), above 0 where a patch looks clean."""
    with seeded("restoring", int(torch.randint(2**31, (1,), generator=rng))):
        return nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )  # fmt: skip
