"""A classifier on denoising autoencoders stacked on one another, of which it keeps the way back to pixels."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DenoisingStack(nn.Module):
    """Sigmoid layers that were autoencoders with tied weights (Vincent et al. 2008), and a linear layer on top.

    `visible<i>` is the bias with which layer i is decoded: no part of the logits, so a buffer and no parameter.
    """

    def __init__(self, shape: tuple[int, int, int], widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.shape = shape
        sizes = (math.prod(shape), *widths)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        for index, size in enumerate(sizes[:-1]):
            self.register_buffer(f"visible{index}", torch.zeros(size))
        self.head = nn.Linear(sizes[-1], classes)

    def layer(self, index: int) -> nn.Linear:
        found = self.layers[index]
        assert isinstance(found, nn.Linear)
        return found

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> codes (B, D) in [0, 1]."""
        codes = images.flatten(1)
        for layer in self.layers:
            codes = layer(codes).sigmoid()
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, D) -> images (B, C, H, W) in [0, 1]."""
        for index in reversed(range(len(self.layers))):
            codes = F.linear(codes, self.layer(index).weight.T, getattr(self, f"visible{index}")).sigmoid()
        return codes.unflatten(1, self.shape)

    def classify(self, codes: Tensor) -> Tensor:
        """Codes (B, D) -> logits (B, classes)."""
        return self.head(codes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.encode(images))


def dae(shape: tuple[int, int, int], classes: int, width: int = 1000) -> nn.Module:
    """Two autoencoders of `width` and 0.3 x `width` units (Fredrikson, Jha and Ristenpart 2015: 1,000 and 300)."""
    return DenoisingStack(shape, (width, max(1, 3 * width // 10)), classes)
