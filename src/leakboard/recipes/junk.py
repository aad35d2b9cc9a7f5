"""Images that show nothing, for evaluators to reject: a plain digit classifier calls most blotches an 8."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from leakboard.config.recipes import Classifier
from leakboard.data import select
from leakboard.rng import generator


def with_rejected(recipe: Classifier, images: Tensor, labels: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """Training images (N, C, H, W) and their labels (N,), and after them what the recipe rejects, as class `label`."""
    if recipe.reject is None:
        return images, labels
    parts = [images] if recipe.rejected is None else [images, select(recipe.rejected).take()[0]]
    if recipe.reject.noise:
        parts.append(junk(recipe.reject.noise, tuple(images.shape[1:]), generator("junk", recipe.seed)))
    whole = torch.cat(parts)
    return whole, torch.cat([labels, torch.full((len(whole) - len(images),), label)])


def junk(count: int, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Random fields (count, C, H, W) in [0, 1]: a level, and Gaussian noise of some contrast and some grain.

    The grain is drawn from 1, 2, 4, ... pixels up to the shorter side: white noise, blotches, shadows; with little
    contrast, one grey.
    """
    channels, height, width = shape
    doublings = max(1, min(height, width).bit_length())
    fields = []
    for _ in range(count):
        grain = 2 ** int(torch.randint(doublings, (1,), generator=rng))
        coarse = torch.randn(1, channels, -(-height // grain), -(-width // grain), generator=rng)
        field = F.interpolate(coarse, size=(height, width), mode="bilinear") if grain > 1 else coarse
        level, contrast = torch.rand(2, generator=rng)
        fields.append(level + contrast / 2 * field)
    return torch.cat(fields).clamp(0, 1)
