"""Forms of a network: what is taken out of it after it has been built, so that every network has them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class InDouble(nn.Module):
    """In front of a network in double precision: images (B, C, H, W) become what its weights are.

    A network that is cast anew casts this too, so that it goes on taking the images of anybody.
    """

    kind: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kind", torch.zeros((), dtype=torch.float64), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images.to(self.kind.dtype)


def without_bias(network: nn.Module) -> nn.Module:
    """Convolutions and linear layers lose their biases; batch norm keeps its shift."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.bias = None
    return network


def without_batch_norm(network: nn.Module) -> nn.Module:
    """Every batch norm lets its input through."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    return network


def with_dropout(network: nn.Module, share: float) -> nn.Module:
    """Every dropout layer drops `share` (in train mode). ValueError if there is none."""
    layers = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    if not layers:
        raise ValueError(f"{type(network).__name__} has no dropout layer")
    for layer in layers:
        layer.p = share
    return network
