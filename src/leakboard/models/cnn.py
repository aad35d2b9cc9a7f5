"""Plain convolutional networks, as federated learning papers use them."""

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


def mcnn(shape: tuple[int, int, int], classes: int, width: int = 64) -> nn.Module:
    """GMI's target on MNIST (Zhang et al. 2020): convolutions of 7x7, 5x5 and 5x5, `width` channels doubled each time.

    For 32x32 images, where one pixel is left at the end. differs: of larger ones, the mean of what is left.
    """
    return nn.Sequential(
        *_normed(shape[0], width, 7, 1),
        nn.MaxPool2d(2),
        *_normed(width, 2 * width, 5),
        nn.MaxPool2d(2),
        *_normed(2 * width, 4 * width, 5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


def scnn(shape: tuple[int, int, int], classes: int, width: int = 32) -> nn.Module:
    """GMI's evaluator on MNIST: five convolutions, `width` channels doubled each time, for images from 32x32 on.

    differs: padding where the paper names none, and of images beyond 32x32 the mean of what is left.
    """
    return nn.Sequential(
        *_normed(shape[0], width, 7, 1),
        nn.MaxPool2d(2),
        *_normed(width, 2 * width, 5),
        nn.MaxPool2d(2),
        *_normed(2 * width, 4 * width, 5, 2),
        *_normed(4 * width, 8 * width, 3),
        *_normed(8 * width, 16 * width, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16 * width, classes),
    )


def _normed(before: int, after: int, side: int, padding: int = 0) -> tuple[nn.Module, ...]:
    return nn.Conv2d(before, after, side, padding=padding), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)
