"""The two networks of GMI on MNIST (Zhang et al. 2020): what is attacked and what judges."""

from __future__ import annotations

from torch import nn


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
