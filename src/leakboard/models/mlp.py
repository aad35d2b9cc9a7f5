"""Fully connected networks, whose first layer sees the pixels themselves."""

from __future__ import annotations

import math

from torch import nn


def mlp(shape: tuple[int, int, int], classes: int, width: int = 200) -> nn.Module:
    """Two hidden layers of `width` (McMahan et al. 2017: 200)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


def fc2(shape: tuple[int, int, int], classes: int, width: int = 256) -> nn.Module:
    """One hidden layer of `width` (Kariyappa et al. 2023: 256)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), width), nn.ReLU(), nn.Linear(width, classes))


def softmax(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Softmax regression: one linear layer on pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))


def mlp_sigmoid(shape: tuple[int, int, int], classes: int, width: int = 3000) -> nn.Module:
    """One hidden layer of sigmoid units (Fredrikson, Jha and Ristenpart 2015: 3,000)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), width), nn.Sigmoid(), nn.Linear(width, classes))
