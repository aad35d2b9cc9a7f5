"""The LeNet of "Deep Leakage from Gradients" (Zhu et al. 2019): three 5x5 convolutions, one linear layer."""

from __future__ import annotations

from torch import nn


def lenet_sigmoid(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The published form: sigmoid, no pooling, so that the gradient is twice differentiable everywhere."""
    return _lenet(shape, classes, nn.Sigmoid)


def lenet_relu(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The same layers with ReLU, where second derivatives vanish almost everywhere: DLG's known failure."""
    return _lenet(shape, classes, nn.ReLU)


def _lenet(shape: tuple[int, int, int], classes: int, activation: type[nn.Module]) -> nn.Module:
    channels, height, width = shape
    features = 12 * ((height + 3) // 4) * ((width + 3) // 4)  # two strides of 2, rounded up
    return nn.Sequential(
        nn.Conv2d(channels, 12, 5, stride=2, padding=2),
        activation(),
        nn.Conv2d(12, 12, 5, stride=2, padding=2),
        activation(),
        nn.Conv2d(12, 12, 5, stride=1, padding=2),
        activation(),
        nn.Flatten(),
        nn.Linear(features, classes),
    )
