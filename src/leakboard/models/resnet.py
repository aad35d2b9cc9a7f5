"""Residual networks for 32x32 images (He et al. 2016): ResNet-20 of section 4.2, and ResNet-18 with a 3x3 stem."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut.

    padded: where the shape changes, the shortcut strides and pads channels with zeros (option A); else it is a 1x1
    convolution there (option B).
    """

    def __init__(self, before: int, after: int, stride: int, padded: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Sequential()
        if padded:
            self.shortcut = Padded(stride, (after - before) // 2)
        elif stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class Padded(nn.Module):
    """Every `stride`-th pixel, `channels` of zeros on either side."""

    def __init__(self, stride: int, channels: int) -> None:
        super().__init__()
        self.stride, self.channels = stride, channels

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.channels, self.channels))


class ResNet20(nn.Module):
    """Parameter names are those of the public CIFAR-10 weights, which load without renaming."""

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(shape[0], width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 2)
        self.linear: nn.Module = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.mean(x, dim=(2, 3)))


def _stage(before: int, after: int, stride: int) -> nn.Sequential:
    sizes = ((before, after, stride), (after, after, 1), (after, after, 1))
    return nn.Sequential(*(Block(*size, padded=True) for size in sizes))


def resnet20(shape: tuple[int, int, int], classes: int, width: int = 16) -> nn.Module:
    """Width 16 is He's network; width 64 is the "ResNet20-4" of Inverting Gradients up to its shortcuts."""
    return ResNet20(shape, classes, width)


class ResNet20Linear(ResNet20):
    """ResNet-20 whose last features (4 x width, H / 4, W / 4) go through two linear layers, unpooled."""

    def __init__(self, shape: tuple[int, int, int], classes: int, hidden: int) -> None:
        super().__init__(shape, classes, 16)
        features = 64 * -(-shape[1] // 4) * -(-shape[2] // 4)
        self.linear = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).flatten(1))


def resnet20fc(shape: tuple[int, int, int], classes: int, width: int = 256) -> nn.Module:
    """ResNet-20 with a hidden linear layer of `width` on its features: what feature inversion is tried on."""
    return ResNet20Linear(shape, classes, width)


def resnet18(shape: tuple[int, int, int], classes: int, width: int = 64) -> nn.Module:
    """Four stages of two blocks; images below 64 pixels meet a 3x3 stem without pooling in place of ImageNet's 7x7."""
    return _wide(shape, classes, width, (2, 2, 2, 2))


def resnet34(shape: tuple[int, int, int], classes: int, width: int = 64) -> nn.Module:
    """As ResNet-18, with 3, 4, 6 and 3 blocks."""
    return _wide(shape, classes, width, (3, 4, 6, 3))


def _wide(shape: tuple[int, int, int], classes: int, width: int, blocks: tuple[int, ...]) -> nn.Module:
    large = min(shape[1:]) >= 64
    kernel, stride = (7, 2) if large else (3, 1)
    stem = nn.Conv2d(shape[0], width, kernel, stride, kernel // 2, bias=False)
    layers: list[nn.Module] = [stem, nn.BatchNorm2d(width), nn.ReLU()]
    layers += [nn.MaxPool2d(3, 2, 1)] if large else []
    before = width
    for stage, count in enumerate(blocks):
        after = width * 2**stage
        layers += [
            Block(before, after, 1 if stage == 0 else 2),
            *(Block(after, after, 1) for _ in range(count - 1)),
        ]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def resnet9(shape: tuple[int, int, int], classes: int, width: int = 64) -> nn.Module:
    """Four convolutions of `width` x (1, 2, 4, 8) channels, pooled after the last three, and a block after the second
    and the fourth.
    """
    layers: list[nn.Module] = []
    before = shape[0]
    for stage in range(4):
        after = width * 2**stage
        layers += [nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if stage else []
        layers += [Block(after, after, 1)] if stage in (1, 3) else []
        before = after
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(before, classes))
