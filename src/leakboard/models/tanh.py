"""The network of the first GAN attack on federated learning (Hitaj, Ateniese and Perez-Cruz 2017)."""

from __future__ import annotations

from torch import nn


def tanh(shape: tuple[int, int, int], classes: int, width: int = 32) -> nn.Module:
    """Convolutions of 5x5 with `width` and 2 x `width` channels, each with tanh and max-pooling (3, then 2), and linear
    layers of 200 and `classes`, for images from 22x22 on.

    105,506 parameters on 28x28 grey images of ten classes, the number that is told of the paper's network on MNIST; an
    output beside the classes adds 201.
    """
    channels, height, breadth = shape
    left = [((side - 4) // 3 - 4) // 2 for side in (height, breadth)]
    return nn.Sequential(
        nn.Conv2d(channels, width, 5),
        nn.Tanh(),
        nn.MaxPool2d(3),
        nn.Conv2d(width, 2 * width, 5),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * left[0] * left[1], 200),
        nn.Tanh(),
        nn.Linear(200, classes),
    )
