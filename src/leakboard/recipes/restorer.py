"""Training a restorer on pairs of public images, degraded and clean."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from leakboard.config.recipes import Degradation, Restorer
from leakboard.data.loading import dataset_of
from leakboard.models.restorer import Restoring, critic, restoring
from leakboard.recipes.store import RecipeError
from leakboard.rng import generator

REACH = 3  # standard deviations of a Gaussian that its kernel holds on either side


def untrained(recipe: Restorer) -> Restoring:
    rng, channels = generator("restorer", recipe.seed), dataset_of(recipe.images).shape[0]
    return restoring(recipe.form, channels, recipe.width, recipe.depth, rng)


def train(
    network: Restoring, recipe: Restorer, images: Tensor, labels: Tensor, device: torch.device | str = "cpu"
) -> None:
    """The recipe's error on images (N, C, H, W), degraded anew at every pass, in place; ends in eval mode.

    RecipeError as soon as a loss is not finite.
    """
    network.to(device).train()
    rng = generator("training", recipe.seed)
    adam = torch.optim.Adam(network.parameters(), recipe.rate)
    total = recipe.epochs * math.ceil(len(images) / recipe.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, total)
    error = F.l1_loss if recipe.error == "absolute" else F.mse_loss
    adversary = Adversary(recipe, images.shape[1], device) if recipe.adversary else None
    for epoch in range(1, recipe.epochs + 1):
        losses = torch.zeros((), device=device)
        for chosen in torch.randperm(len(images), generator=rng).split(recipe.batch):
            clean = images[chosen]
            restored = network(degraded(clean, recipe.degradation, rng).to(device))
            loss = error(restored, clean.to(device))
            if adversary is not None:
                loss = loss + recipe.adversary * adversary(restored, clean.to(device))
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
            losses += loss.detach()
        if not torch.isfinite(losses):
            raise RecipeError(
                f"restorer {recipe.hash} of {recipe.images}: the training diverged in epoch {epoch} of "
                f"{recipe.epochs}; try a `rate` below {recipe.rate:g}"
            )
    network.eval()


class Adversary:
    """A critic in training. Called on restored and clean images it learns, and says how much the restored ones fail it.

    That is the log loss of taking them for clean; of the critic itself, of telling both right.
    """

    def __init__(self, recipe: Restorer, channels: int, device: torch.device | str) -> None:
        self.critic = critic(channels, recipe.width, generator("critic", recipe.seed)).to(device)
        self.adam = torch.optim.Adam(self.critic.parameters(), recipe.rate, betas=(0.5, 0.999))

    def __call__(self, restored: Tensor, clean: Tensor) -> Tensor:
        wrong = F.softplus(-self.critic(clean)).mean() + F.softplus(self.critic(restored.detach())).mean()
        self.adam.zero_grad()
        wrong.backward()
        self.adam.step()
        return F.softplus(-self.critic(restored)).mean()


def degraded(images: Tensor, how: Degradation, rng: torch.Generator) -> Tensor:
    """Images (B, C, H, W) in [0, 1], blurred, averaged in blocks, noised and masked, still of that shape and range.

    RecipeError where the blocks do not tile the image.
    """
    height, width = images.shape[2:]
    if height % how.block or width % how.block:
        raise RecipeError(f"degradation: blocks of {how.block} pixels do not tile images of {height}x{width}")
    if how.blur:
        images = _blurred(images, how.blur)
    if how.block > 1:
        means = F.avg_pool2d(images, how.block)
        images = means.repeat_interleave(how.block, 2).repeat_interleave(how.block, 3)
    if how.noise:
        images = images + how.noise * torch.randn(images.shape, generator=rng).to(images.device)
    if how.mask:
        images = images * _around(round(height * how.mask), round(width * how.mask), images)
    return images.clamp(0, 1)


def _around(down: int, across: int, images: Tensor) -> Tensor:
    """(H, W): 0 in a rectangle of this size in the middle of the images, 1 elsewhere."""
    kept = torch.ones(images.shape[2:], dtype=images.dtype, device=images.device)
    top, left = (kept.shape[0] - down) // 2, (kept.shape[1] - across) // 2
    kept[top : top + down, left : left + across] = 0
    return kept


def _blurred(images: Tensor, deviation: float) -> Tensor:
    """Convolved with a Gaussian, along and across; what lies outside of the image is its nearest pixel."""
    reach = math.ceil(REACH * deviation)
    places = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    weights = torch.exp(-0.5 * (places / deviation).square())
    kernel = (weights / weights.sum()).repeat(images.shape[1], 1, 1, 1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    down = F.conv2d(padded, kernel.transpose(2, 3), groups=images.shape[1])
    return F.conv2d(down, kernel, groups=images.shape[1])
