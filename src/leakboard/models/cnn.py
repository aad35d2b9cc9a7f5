"""A plain CNN whose first fully connected layer holds nearly all of its weights."""

from __future__ import annotations

from torch import nn


def cnn(shape: tuple[int, int, int], classes: int, width: int = 512) -> nn.Module:
    """Two 5x5 convolutions of 32 and 64 channels, one max-pooling, linear layers of `width` and `classes`.

    On 32x32 images the first linear layer is 16384 x 512: gradient matching on it is memory traffic unless its weight
    gradient stays factored.
    """
    channels, height, breadth = shape
    return nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (height // 2) * (breadth // 2), width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )
