"""A layer that spells its inputs out: what a malicious server puts in front of a network, and how its gradient is read.

One rule carries it: the gradient of a linear layer's row i is sum_n delta_ni (x_n, 1) over weights and bias, so a row
that one image alone has moved is that image times a number, and the bias says which number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

Measure = Literal["mean", "dct", "random"]
Connection = Literal["linear", "add", "cat", "softmax"]


def measurement(kind: Measure, size: int, mode: int, rng: torch.Generator) -> Tensor:
    """The linear function (size,) that sorts images: their mean, one mode of their cosine transform, or noise."""
    if kind == "mean":
        return torch.full((size,), 1 / size)
    if kind == "random":
        return torch.randn(size, generator=rng) / math.sqrt(size)
    return torch.cos(math.pi / size * (torch.arange(size) + 0.5) * mode) / size


class Imprint(nn.Module):
    """Linear, ReLU, linear in front of `network`; images (B, C, H, W) go in, logits come out.

    edges (k,): where the bins of the measurement `row` (D,) begin, ascending. Cumulative: unit i is open for images
    whose measurement exceeds edge i; sparse: only for those in bin i, above which it is saturated.
    gain: the scale of the first layer; a small one keeps its digits in a model update, and the first step then closes
    or saturates every unit that it moves. What the second layer makes of the units is the same for all of them.
    connection: it replaces the image, is added to it, stands beside it as further channels (which a 1x1 convolution
    adds), or gates it.
    """

    limits: Tensor

    def __init__(
        self,
        network: nn.Module,
        row: Tensor,
        edges: Tensor,
        shape: torch.Size,
        gain: float,
        connection: Connection,
        sparse: bool,
    ) -> None:
        super().__init__()
        count, size = len(edges), len(row)
        self.first = _linear(gain * row.expand(count, -1), -gain * edges)
        widths = edges.diff(append=2 * edges[-1:] - edges[-2:-1])  # the last bin is as wide as the one before it
        self.register_buffer("limits", gain * widths if sparse else torch.full((count,), torch.inf))
        out = 2 if connection == "softmax" else size
        self.second = _linear(torch.full((out, count), 1 / (gain * count)), torch.zeros(out))
        if connection == "softmax":
            self.second.weight.data[1] = 0  # a gate has two sides
        self.mix = None
        if connection == "cat":
            self.mix = skip_init(nn.Conv2d, 2 * shape[0], shape[0], 1, bias=False)
            self.mix.weight.data = torch.eye(shape[0]).repeat(1, 2)[:, :, None, None]
        self.connection, self.shape, self.network = connection, shape, network

    def forward(self, images: Tensor) -> Tensor:
        out = self.second(self.first(images.flatten(1)).clamp_min(0).minimum(self.limits))
        if self.connection == "softmax":
            return self.network(images * out.softmax(1)[:, :1, None, None])
        out = out.view_as(images)
        if self.mix is not None:
            return self.network(self.mix(torch.cat([images, out], 1)))
        return self.network(out + images if self.connection == "add" else out)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = skip_init(nn.Linear, weight.shape[1], weight.shape[0])  # draws nothing from the global generator
    layer.weight.data, layer.bias.data = weight.clone(), bias.clone()
    return layer


def read(
    weight: Tensor, bias: Tensor, tolerance: float, pixels: Callable[[Tensor], Tensor] = lambda inputs: inputs
) -> Tensor:
    """Rows (k, D) and biases (k,) of a layer's gradient -> the images (M, D) in them, the most credible first.

    pixels: the layer's inputs (N, D) -> the images in [0, 1] that they are of, where something lies before the layer.

    Rows whose bias has not moved by `tolerance` times the most that any has hold nothing. A row that several images
    have moved holds a mixture of them. What tells the two apart without the truth: an image lies in [0, 1], several
    rows may show the same image but hardly the same mixture, and images have 8 bits: 255 x is whole.
    """
    moved = bias.abs() > tolerance * bias.abs().max().clamp_min(torch.finfo(bias.dtype).tiny)
    found = pixels(weight[moved] / bias[moved, None])
    outside = (found - found.clamp(0, 1)).abs().amax(1) > 1e-2
    found = found[~outside]
    crumbs = (255 * found - (255 * found).round()).abs().mean(1)
    found = found[crumbs.argsort(stable=True)]
    return _distinct(found)


def of_8_bits(images: Tensor) -> Tensor:
    """Which of the images (N, D) have 8 bits, that is whose 255 x is whole to a quarter: (N,), bool."""
    return (255 * images - (255 * images).round()).abs().amax(1) < 0.25


def _distinct(images: Tensor) -> Tensor:
    """The first of every set of equal images (N, D), those that occur more than once in front."""
    same = torch.cdist(images, images, p=math.inf) < 1e-3
    first = same.tril(-1).sum(1) == 0
    often = same.sum(1)[first] > 1
    return torch.cat([images[first][often], images[first][~often]])


def gradient_of(layer: nn.Linear, model: nn.Module, gradient: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The observed gradients of a layer's weight and bias."""
    places = [id(parameter) for parameter in model.parameters()]
    weight, bias = (gradient[places.index(id(part))] for part in (layer.weight, layer.bias))
    return weight, bias
