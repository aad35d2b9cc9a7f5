"""Small models and data for the tests of federations."""

from __future__ import annotations

import torch
from torch import nn

from leakboard.config import Federation
from leakboard.federation.clients import Held
from leakboard.rng import seeded

LOSS = nn.CrossEntropyLoss()
PLAIN = Federation(learning_rate=0.05)


def small(kind: str = "plain") -> nn.Module:
    with seeded("network", 1):
        if kind == "plain":
            return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))


def held(images: int, seed: int = 0) -> Held:
    rng = torch.Generator().manual_seed(seed)
    return Held(torch.rand(images, 1, 2, 2, generator=rng), torch.randint(3, (images,), generator=rng))
