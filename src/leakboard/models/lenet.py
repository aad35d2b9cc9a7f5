"""The LeNet of "Deep Leakage from Gradients" (Zhu et al. 2019): three 5x5 convolutions, one linear layer; and
one after LeNet-5, with pooling."""

from __future__ import annotations

from torch import nn


def lenet_sigmoid(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The published form: sigmoid, no pooling, so that the gradient is twice differentiable everywhere."""
    return _lenet(shape, classes, nn.Sigmoid)


def lenet_relu(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The same layers with ReLU, where second derivatives vanish almost everywhere: DLG's known failure."""
    return _lenet(shape, classes, nn.ReLU)


def lenet_pooled(shape: tuple[int, int, int], classes: int, width: int = 32) -> nn.Module:
    """Two 5x5 convolutions of `width` and 2 x `width` channels, max-pooled, linear layers of 16 x `width` and `classes`
    without biases (Wilson et al. 2024).
    """
    channels, height, breadth = shape
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * (height // 4) * (breadth // 4), 16 * width, bias=False),
        nn.ReLU(),
        nn.Linear(16 * width, classes, bias=False),
    )


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
