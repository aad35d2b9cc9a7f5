"""A small residual network that restores images of any size: what it adds is its guess of what they lost."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakboard.rng import seeded


class Restoring(nn.Module):
    """Degraded images (B, C, H, W) in [0, 1] -> restored ones of the same shape; clamped to [0, 1] in eval mode."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(depth)
        )
        self.leave = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)  # training starts from the degraded image as it is
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.enter(images))
        for block in self.blocks:
            features = features + block(features)
        restored = images + self.leave(features)
        return restored if self.training else restored.clamp(0, 1)


def restoring(channels: int, width: int, depth: int, rng: torch.Generator) -> Restoring:
    """An untrained network, with PyTorch's default initialisation as `rng` draws it."""
    with seeded("restoring", int(torch.randint(2**31, (1,), generator=rng))):
        return Restoring(channels, width, depth)
