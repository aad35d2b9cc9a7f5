"""Plain convolutional networks, as federated learning papers use them."""

from __future__ import annotations

from itertools import pairwise

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
        nn.Dropout(0),
        nn.Linear(width, classes),
    )


def cnn3(shape: tuple[int, int, int], classes: int, width: int = 64) -> nn.Module:
    """Two 3x3 convolutions of `width` and 2 x `width` channels with average-pooling, linear layers of 200 and `classes`
    (Dimitrov et al. 2022, for CIFAR-100).
    """
    channels, height, breadth = shape
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * (height // 4) * (breadth // 4), 200),
        nn.ReLU(),
        nn.Linear(200, classes),
    )


def cnn_pooled(shape: tuple[int, int, int], classes: int, width: int = 16) -> nn.Module:
    """Images of 16 pixels and more, halved, and three 3x3 convolutions of `width` x (1, 2, 4) channels with batch norm
    and max-pooling: little work for large images of few classes. It judges faces.
    """
    channels, height, breadth = shape
    widths = [channels, width, 2 * width, 4 * width]
    layers: list[nn.Module] = [nn.AvgPool2d(2)]
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * (height // 16) * (breadth // 16), classes))
