"""VGG networks (Simonyan and Zisserman 2015)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def vgg7(shape: tuple[int, int, int], classes: int, width: int = 64) -> nn.Module:
    """Six 3x3 convolutions of `width` x (1, 1, 2, 2, 4, 4) channels, pooled after every second, and a linear layer."""
    features = _features(shape[0], (width, width, 0, 2 * width, 2 * width, 0, 4 * width, 4 * width, 0))
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(4 * width * (shape[1] // 8) * (shape[2] // 8), classes))


def vgg16(shape: tuple[int, int, int], classes: int, width: int = 4096) -> nn.Module:
    """Configuration D; parameter names are torchvision's, whose ImageNet weights load without renaming."""
    layers = _features(
        shape[0], (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0), min(shape[1:])
    )
    classifier = [
        nn.Linear(512 * 49, width), nn.ReLU(), nn.Dropout(0),
        nn.Linear(width, width), nn.ReLU(), nn.Dropout(0),
        nn.Linear(width, classes),
    ]  # fmt: skip
    parts = {"features": nn.Sequential(*layers), "avgpool": nn.AdaptiveAvgPool2d(7), "flatten": nn.Flatten()}
    return nn.Sequential(OrderedDict(parts, classifier=nn.Sequential(*classifier)))


def _features(channels: int, widths: tuple[int, ...], side: int | None = None) -> list[nn.Module]:
    """3x3 convolutions with ReLU; 0 is a 2x2 max-pooling, left out where of an image of `side` one pixel remains."""
    layers: list[nn.Module] = []
    for width in widths:
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        elif side is None or side > 1:
            layers.append(nn.MaxPool2d(2))
            side = side and side // 2
    return layers
