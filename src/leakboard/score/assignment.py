"""Which handed-in image stands for which true one: decided once per trial, then shared by all metrics."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def mse_matrix(true: Tensor, got: Tensor) -> Tensor:
    """Mean squared error of every pair. (B, ...), (M, ...) -> (B, M) float64. ValueError when image shapes differ."""
    if true.shape[1:] != got.shape[1:]:
        raise ValueError(f"true images are {tuple(true.shape[1:])}, got images {tuple(got.shape[1:])}")
    x, y = (images.detach().to(true.device).double().flatten(1) for images in (true, got))
    # Differences, not inner products: cancellation would hide small errors and make the matching depend on order.
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.square() / max(x.shape[1], 1)


def match(true: Tensor, got: Tensor) -> Tensor:
    """The index of the got image that stands for each true image, or -1. (B, ...), (M, ...) -> (B,) int64 on the CPU.

    Hungarian assignment on the MSE; M may be 0, below B or above it. A got image with any NaN or infinite pixel stands
    for nothing. ValueError when the truth itself is not finite.
    """
    if not torch.isfinite(true).all():
        raise ValueError("true images are not finite")
    usable = torch.tensor([position for position, image in enumerate(got) if torch.isfinite(image).all()]).long()
    cost = mse_matrix(true, got[usable.to(got.device)])
    rows, columns = linear_sum_assignment(cost.cpu().numpy())
    index = torch.full((len(true),), -1)
    index[torch.from_numpy(rows)] = usable[torch.from_numpy(columns)]
    return index


def stand_ins(index: Tensor, got: Tensor, noise: Tensor) -> Tensor:
    """What is scored in each true image's place: its match, else its noise. (B,), (M, ...), (B, ...) -> (B, ...)"""
    images, found = noise.detach().clone(), (index >= 0).to(noise.device)
    images[found] = got.detach()[index[index >= 0].to(got.device)].to(images)
    return images
