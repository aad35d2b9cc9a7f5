"""What a diffusion model of public images makes of noise, and of images that an attack left blurred or noisy.

Pixels are in [0, 1] outside and in [-1, 1] inside. a_t are the model's `alphas`; every chain takes `steps` of its T
times in equal distances, T - 1 and 0 among them.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from leakboard.models.diffusion import Diffusing


def sample(prior: Diffusing, noise: Tensor, labels: Tensor | None, steps: int, guidance: float = 1.0) -> Tensor:
    """Noise (B, C, H, W) from N(0, 1), of classes (B,) or any -> images (B, C, H, W) in [0, 1].

    The chain draws nothing: DDIM (Song, Meng and Ermon 2021, equation 12 with sigma = 0). guidance: see `predicted`.
    ValueError for a number of steps that there is not.
    """
    with torch.no_grad():
        return _pixels(_chain(prior, noise, labels, steps, guidance)).clamp(0, 1)


def ddrm(
    prior: Diffusing,
    given: Tensor,
    rng: torch.Generator,
    block: int = 1,
    noise: float = 0.1,
    steps: int = 50,
    eta: float = 0.85,
    eta_known: float = 1.0,
) -> Tensor:
    """Images (B, C, H, W) in [0, 1] like the prior's whose means over blocks are those of `given`, but for noise.

    Kawar et al. 2022, equations 7 and 8; eta_known is their eta_b. given: (B, C, H, W) in [0, 1]; of each block of
    `block` pixels a side its mean alone counts. noise: the standard deviation of these means, as pixels. The classes
    are not asked for. ValueError where blocks do not tile the image.

    A block's mean has the singular value 1 / block: its direction is a coordinate known up to block x noise; those
    across it are free. Both are written as images here, the means repeated over their blocks and what is left.
    """
    if given.shape[2] % block or given.shape[3] % block:
        raise ValueError(f"blocks of {block} pixels do not tile images of {given.shape[2]}x{given.shape[3]}")
    observed, unsure = _means(2 * given - 1, block), 2 * noise * block
    times = times_of(prior, steps)
    sigmas = (1 / prior.alphas[times].double() - 1).sqrt().tolist()  # of x / sqrt(a_t), which noise is added to
    keep = math.sqrt(1 - eta**2)
    point = _drawn(observed, math.sqrt(max(0.0, sigmas[0] ** 2 - unsure**2)), sigmas[0], block, rng)
    for t, (sigma, after) in zip(times, pairwise([*sigmas, 0.0]), strict=True):
        with torch.no_grad():
            slope = prior(point / math.sqrt(1 + sigma**2), t.expand(len(point)).to(point.device))
        clean = point - sigma * slope
        known, spread = _means(clean, block), eta * after
        free = clean - known + keep * after * (slope - _means(slope, block))
        if after < unsure:
            known = known + keep * after / unsure * (observed - known)
        else:
            known = known + eta_known * (observed - known)
            spread = math.sqrt(after**2 - (eta_known * unsure) ** 2)
        point = _drawn(known + free, spread, eta * after, block, rng)
    return _pixels(point).clamp(0, 1)


def semantic(
    prior: Diffusing,
    target: Tensor,
    labels: Tensor,
    rng: torch.Generator,
    steps: int,
    iterations: int,
    rate: float = 1e-2,
    guidance: float = 4.0,
) -> Tensor:
    """Images (B, C, H, W) in [0, 1] that the prior has for these classes (B,), near a blurred `target` (B, C, H, W).

    Adam at `rate` on the noise that a chain of `steps` starts from, from N(0, 1), towards the target's squared error
    (Wilson et al. 2024, their semantic post-processing), through `straight_through`. Handed back is what the noise
    after the last of `iterations` gives, the number of which is fixed beforehand. differs: the authors stop where it
    looks best. An image's way is its own, whatever else is in the batch.
    """
    noise = torch.randn(target.shape, generator=rng).to(target).requires_grad_()
    adam = torch.optim.Adam([noise], rate)
    for _ in range(iterations):
        _, noise.grad = straight_through(prior, noise.detach(), target, labels, steps, guidance)
        adam.step()
    return sample(prior, noise.detach(), labels, steps, guidance)


def straight_through(
    prior: Diffusing, noise: Tensor, target: Tensor, labels: Tensor | None, steps: int, guidance: float
) -> tuple[Tensor, Tensor]:
    """(mean squared error (B,) of what the chain makes of the noise to the target, its slope at the noise).

    As if what the prior predicts on the way were constants: then x_0 is z / sqrt(a_T) and something that does not
    depend on z. No graph is kept. The pixels are not clamped here.
    """
    with torch.no_grad():
        gap = _pixels(_chain(prior, noise, labels, steps, guidance)) - target
        first = prior.alphas[times_of(prior, steps)[0]]
        slope = gap / gap[0].numel() / first.sqrt()  # a pixel is (x_0 + 1) / 2, which cancels the 2 of the square
    return gap.square().flatten(1).mean(1), slope


def times_of(prior: Diffusing, steps: int) -> Tensor:
    """T - 1, ..., 0, as many times as steps, (steps,) on the CPU; a single step is T - 1."""
    times = len(prior.alphas)
    if not 1 <= steps <= times:
        raise ValueError(f"{steps} steps; the prior has {times} times, expected 1 to {times}")
    return torch.linspace(times - 1, 0, steps, dtype=torch.float64).round().long()


def predicted(prior: Diffusing, noisy: Tensor, t: Tensor, labels: Tensor | None, guidance: float) -> Tensor:
    """The noise in images (B, C, H, W) at the time t (): none + guidance (of the class - none).

    Ho and Salimans 2022, equation 6, whose w is guidance - 1; 1 is the class alone.
    """
    t = t.expand(len(noisy)).to(noisy.device)
    if labels is None:
        return prior(noisy, t)
    of_class = prior(noisy, t, labels)
    if guidance == 1:
        return of_class
    of_none = prior(noisy, t)
    return of_none + guidance * (of_class - of_none)


def _chain(prior: Diffusing, noise: Tensor, labels: Tensor | None, steps: int, guidance: float) -> Tensor:
    """Noise -> x_0, which may leave [-1, 1]."""
    point, times = noise, times_of(prior, steps)
    levels = [*prior.alphas[times].tolist(), 1.0]
    for t, (now, after) in zip(times, pairwise(levels), strict=True):
        slope = predicted(prior, point, t, labels, guidance)
        clean = (point - math.sqrt(1 - now) * slope) / math.sqrt(now)
        point = math.sqrt(after) * clean + math.sqrt(1 - after) * slope
    return point


def _drawn(middle: Tensor, known: float, free: float, block: int, rng: torch.Generator) -> Tensor:
    """From a normal around `middle` with these deviations along the means of blocks and across them."""
    draw = torch.randn(middle.shape, generator=rng).to(middle)
    along = _means(draw, block)
    return middle + known * along + free * (draw - along)


def _means(images: Tensor, block: int) -> Tensor:
    """Every pixel the mean of its block."""
    if block == 1:
        return images
    return F.avg_pool2d(images, block).repeat_interleave(block, 2).repeat_interleave(block, 3)


def _pixels(images: Tensor) -> Tensor:
    return (images + 1) / 2
