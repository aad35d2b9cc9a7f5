"""The linear layer that sees the image itself: where it is, what lies before it, and how a malicious server sets it.

Each row of its gradient is a mixture of the images that opened the row's unit. So a server wants units that few images
open: trap weights, negative on the whole, or biases that leave open a number of images of its choice.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from leakboard.models import Normalise


def first_linear(model: nn.Module) -> nn.Linear:
    """The first layer with parameters. ValueError unless it is linear and has a bias."""
    layer = next(module for module in model.modules() if not list(module.children()) and list(module.parameters()))
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"the first layer is {type(layer).__name__}, expected a linear one")
    if layer.bias is None:
        raise ValueError("the first layer has no bias, without whose gradient its rows have no scale")
    return layer


def pixels_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """The images (N, C, H, W) in [0, 1] that a network which normalises its inputs (N, C, H, W) makes these of."""
    for module in model.modules():
        if isinstance(module, Normalise):
            return inputs * module.std + module.mean
    return inputs


def trap_weights(shape: torch.Size, deviation: float, scale: float, mirrored: bool, rng: torch.Generator) -> Tensor:
    """Weights (units, inputs) of absolute values |N(0, deviation^2)|, the positive ones times `scale`.

    mirrored: a random half of every row is negative, the other half its mirror image (Boenisch et al. 2023, section
    5.2). Else every entry has a sign of its own; with scale 1 that is N(0, deviation^2).
    """
    units, size = shape
    draws = deviation * torch.randn(units, size, generator=rng)
    if not mirrored:
        return torch.where(draws > 0, scale * draws, draws)
    order, half = torch.rand(units, size, generator=rng).argsort(1), size // 2
    negative = -draws[:, :half].abs()
    positive = scale * negative[:, torch.randperm(half, generator=rng)].abs()
    return torch.cat([negative, positive, draws[:, 2 * half :]], 1).gather(1, order)


def robust_soliton(most: int, constant: float, failure: float) -> Tensor:
    """Probabilities (most,), float64, of the degrees 1 to `most` (Luby 2002, definition 11).

    Ideal: 1 / most for degree 1, 1 / (i (i - 1)) for i. Robust: on top of it R / (i most) below most / R and
    R ln(R / failure) / most there, with R = constant ln(most / failure) sqrt(most).
    """
    degree = torch.arange(1, most + 1, dtype=torch.float64)
    ideal = torch.cat([degree.new_tensor([1 / most]), 1 / (degree[1:] * (degree[1:] - 1))])
    ripple = constant * math.log(most / failure) * math.sqrt(most)
    spike = min(most, max(1, math.floor(most / ripple)))
    further = torch.where(degree < spike, ripple / (degree * most), 0.0)
    further[spike - 1] = max(0.0, ripple * math.log(ripple / failure) / most)
    return (ideal + further) / (ideal + further).sum()


def biases_by_law(weight: Tensor, degrees: Tensor, batch: int) -> Tensor:
    """Biases (units,) at which `degrees` (units,) of `batch` images open a unit, pixels being uniform on [0, 1].

    A weighted sum of so many pixels is nearly normal, of mean sum w / 2 and variance sum w^2 / 12. differs: at degree
    `batch` the quantile is infinite; there and everywhere a degree is half an image below it at most.
    """
    share = (degrees.double().clamp(max=batch - 0.5) / batch).to(weight.device)
    weight = weight.double()
    return -weight.sum(1) / 2 - (weight.square().sum(1) / 12).sqrt() * torch.special.ndtri(1 - share)


def biases_by_images(weight: Tensor, degrees: Tensor, inputs: Tensor) -> Tensor:
    """Biases (units,) at which exactly `degrees` (units,) of the inputs (N, D) open a unit.

    Half-way between the d-th and the (d + 1)-th largest measurement; for d = N as far below the smallest as that lies
    below the one before it.
    """
    values = (inputs.double() @ weight.double().T).T.sort(1, descending=True).values
    beyond = 2 * values[:, -1:] - values[:, -2:-1]
    bounds = (values + torch.cat([values[:, 1:], (values[:, -1:] + beyond) / 2], 1)) / 2
    return -bounds.gather(1, degrees[:, None].to(bounds.device) - 1)[:, 0]
