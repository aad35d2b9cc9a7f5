"""Networks as plain functions: `build(name or file, shape, classes, ...) -> Module` over images in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from leakboard.config import sections
from leakboard.models.cnn import cnn, cnn3, cnn_pooled
from leakboard.models.convnet import convnet
from leakboard.models.forms import InDouble, with_dropout, without_batch_norm, without_bias
from leakboard.models.lenet import lenet_pooled, lenet_relu, lenet_sigmoid
from leakboard.models.mcnn import mcnn, scnn
from leakboard.models.mlp import fc2, mlp, mlp_sigmoid, softmax
from leakboard.models.own import NetworkError, own_network
from leakboard.models.resnet import resnet9, resnet18, resnet20, resnet20fc, resnet34
from leakboard.models.stack import dae
from leakboard.models.tanh import tanh
from leakboard.models.vgg import vgg7, vgg16

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    network.__name__: network
    for network in (
        mlp, fc2, lenet_sigmoid, lenet_relu, cnn, cnn3, convnet, vgg7, vgg16, resnet9, resnet18, resnet20, resnet20fc,
        resnet34, softmax, mlp_sigmoid, dae, cnn_pooled, mcnn, scnn, tanh, lenet_pooled,
    )
}  # fmt: skip

NORMALISATION = {"imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}


class Normalise(nn.Module):
    """(x - mean) / std per channel. Part of the model, so victim and attack cannot disagree on it.

    NetworkError when the images (B, C, H, W) have another number of channels than `mean` and `std` have numbers.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1] != self.mean.shape[1]:  # one number would be spread over all channels without a word
            wanted, found = images.shape[1], self.mean.shape[1]
            raise NetworkError(f"normalise: mean and std of {found} channels, expected {wanted}, as the images have")
        return (images - self.mean) / self.std


def build(name: str | Path | None, shape: tuple[int, int, int], classes: int, width: int | None = None) -> nn.Module:
    """The network `name`, or that of the file at a Path (`own.py`), for images of `shape` = (C, H, W).

    With PyTorch's default initialisation. NetworkError when there is none or it does not fit.
    """
    if isinstance(name, Path):
        return own_network(name, shape, classes, width)
    if name not in NETWORKS:
        raise NetworkError(f"unknown network {name!r}; there are: {', '.join(sorted(NETWORKS))}")
    return NETWORKS[name](shape, classes) if width is None else NETWORKS[name](shape, classes, width)


def form(network: nn.Module, bias: bool = True, batch_norm: bool = True, dropout: float = 0.0) -> nn.Module:
    """The network without biases or batch norm, or with a share of dropout, as asked for."""
    network = network if bias else without_bias(network)
    network = network if batch_norm else without_batch_norm(network)
    return with_dropout(network, dropout) if dropout else network


def normalised(network: nn.Module, kind: str | sections.Normalise) -> nn.Module:
    """The network with its normalisation in front; `none` leaves it as it is."""
    if kind == "none":
        return network
    mean, std = NORMALISATION[kind] if isinstance(kind, str) else (kind.mean, kind.std)
    return nn.Sequential(Normalise(mean, std), network)


def in_precision(network: nn.Module, precision: str) -> nn.Module:
    """The network as it is (float32), or computing in double precision what it is given in single."""
    return nn.Sequential(InDouble(), network.double()) if precision == "float64" else network


@torch.no_grad()
def normal_(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """N(0, 0.5^2) on the first weight, Xavier-uniform on the others, biases 0 (arXiv 2609.09659)."""
    first, *others = (parameter for parameter in network.parameters() if parameter.ndim > 1)
    first.copy_(0.5 * torch.randn(first.shape, generator=generator))
    for weight in others:
        nn.init.xavier_uniform_(weight, generator=generator)
    for bias in (parameter for parameter in network.parameters() if parameter.ndim == 1):
        bias.zero_()
    return network


@torch.no_grad()
def zeros_(network: nn.Module) -> nn.Module:
    """Every weight and bias 0; of more than one layer, none would ever learn to differ from its neighbours."""
    for parameter in network.parameters():
        parameter.zero_()
    return network


@torch.no_grad()
def uniform_(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """Every weight and bias from U(-0.5, 0.5), in parameter order (the DLG and iDLG papers' networks)."""
    for parameter in network.parameters():
        parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
    return network
