"""The ConvNet of "Inverting Gradients" (Geiping et al. 2020): 3x3 convolutions with batch norm, two max-poolings.

differs: the paper's code lists one 256-channel block under a name that is used twice, so that seven blocks remain of
the eight; these seven are built here.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn


def convnet(shape: tuple[int, int, int], classes: int, width: int = 64) -> nn.Module:
    """Seven blocks of `width` x (1, 2, 2, 4, 4, 4, 4) channels, 3x3 max-pooling after the sixth and the seventh."""
    channels, height, breadth = shape
    widths = [channels, *(width * factor for factor in (1, 2, 2, 4, 4, 4, 4))]
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(pairwise(widths)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        if index in (5, 6):
            layers.append(nn.MaxPool2d(3))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * (height // 9) * (breadth // 9), classes))
