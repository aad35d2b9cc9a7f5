"""A network that tells the noise in an image from the image: what a diffusion model is. diffusers' UNet, in a frame."""

from __future__ import annotations

import math
from types import ModuleType

import torch
from torch import Tensor, nn

from leakboard.config import ConfigError
from leakboard.rng import seeded

TIMES = 1000
FIRST, LAST = 1e-4, 0.02  # variances that the first and the last time add (Ho et al. 2020, section 4)
GROUPS = 8  # of channels that share a norm, at most


class Diffusing(nn.Module):
    """Images with noise (B, C, H, W), times (B,) of 0, ..., T - 1 and classes (B,) -> the noise in them (B, C, H, W).

    Pixels are in [-1, 1] here. An image with noise is sqrt(a_t) x + sqrt(1 - a_t) noise, where a = `alphas` (T,), the
    cumulative products of Ho et al. 2020, equation 4. No classes (None) are a class of their own, the last one.
    classes: 0 in a network that knows none; ValueError if it is asked for one.
    """

    alphas: Tensor

    def __init__(self, unet: nn.Module, classes: int, alphas: Tensor) -> None:
        super().__init__()
        self.unet, self.classes = unet, classes
        self.register_buffer("alphas", alphas.float())

    def forward(self, noisy: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        if not self.classes and labels is not None:
            raise ValueError("this diffusion model knows no classes")
        if self.classes and labels is None:
            labels = torch.full((len(noisy),), self.classes, device=noisy.device)
        return self.unet(noisy, t, class_labels=labels, return_dict=False)[0]


def diffusing(shape: tuple[int, ...], classes: int, width: int, levels: int, rng: torch.Generator) -> Diffusing:
    """An untrained network for images of `shape` (C, H, W), with PyTorch's default initialisation as `rng` draws it.

    `width` channels at full size and twice as many at the other levels; one residual block a level on the way down, two
    on the way up, attention at the smallest. ValueError where a side cannot be halved `levels - 1` times.
    """
    channels, *sides = shape
    if any(side % 2 ** (levels - 1) for side in sides):
        raise ValueError(f"images of {sides[0]}x{sides[1]} pixels cannot be halved {levels - 1} times; fewer `levels`")
    below = levels - 1
    with seeded("diffusing", int(torch.randint(2**31, (1,), generator=rng))):
        unet = library().UNet2DModel(
            sample_size=tuple(sides),
            in_channels=channels,
            out_channels=channels,
            layers_per_block=1,
            block_out_channels=(width, *(2 * width for _ in range(below))),
            down_block_types=(*("DownBlock2D" for _ in range(below)), "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", *("UpBlock2D" for _ in range(below))),
            attention_head_dim=None,  # one head
            norm_num_groups=math.gcd(GROUPS, width),
            num_class_embeds=classes + 1,
        )
    return Diffusing(unet, classes, linear_alphas())


def linear_alphas() -> Tensor:
    """a_t = prod_{s <= t} (1 - b_s) (T,), with b from FIRST to LAST in equal steps."""
    return (1 - torch.linspace(FIRST, LAST, TIMES, dtype=torch.float64)).cumprod(0)


def library() -> ModuleType:
    """diffusers; ConfigError where it is not installed."""
    try:
        import diffusers
    except ImportError:
        raise ConfigError(
            "diffusion models need diffusers, which is not installed: pip install 'leakboard[diffusion]'"
        ) from None
    return diffusers
