"""What natural images look like, as penalties."""

from __future__ import annotations

from torch import Tensor


def total_variation(images: Tensor) -> Tensor:
    """mean |dx| + mean |dy| over all pixels (B, C, H, W) -> scalar (anisotropic; Rudin et al. 1992)."""
    across = (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    return across + down
