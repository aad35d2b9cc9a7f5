"""What natural images look like, as penalties."""

from __future__ import annotations

import torch
from torch import Tensor


def total_variation(images: Tensor) -> Tensor:
    """mean |dx| + mean |dy| over all pixels (B, C, H, W) -> scalar (anisotropic; Rudin et al. 1992)."""
    across = (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    return across + down


def total_variation_slope(images: Tensor) -> tuple[Tensor, Tensor]:
    """The total variation of every problem's images (P, B, C, H, W) -> (P,), and its derivative, in closed form."""
    across = images[..., :, 1:] - images[..., :, :-1]
    down = images[..., 1:, :] - images[..., :-1, :]
    value = across.abs().flatten(1).mean(1) + down.abs().flatten(1).mean(1)
    slope = torch.zeros_like(images)
    for difference, after, before in (
        (across, slope[..., :, 1:], slope[..., :, :-1]),
        (down, slope[..., 1:, :], slope[..., :-1, :]),
    ):
        step = difference.sign() / difference[0].numel()
        after += step
        before -= step
    return value, slope
