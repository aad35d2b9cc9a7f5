"""Training a diffusion model on public images; or taking one that somebody else trained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from leakboard.config.own import place
from leakboard.config.recipes import Diffusion
from leakboard.data.loading import dataset_of
from leakboard.models.diffusion import Diffusing, diffusing, library
from leakboard.recipes.store import RecipeError
from leakboard.rng import generator

MEMORY = 0.999  # of the average of the weights, from one step to the next


def untrained(recipe: Diffusion) -> Diffusing:
    """The network before training; where the recipe names a folder, what lies in it."""
    data = dataset_of(recipe.images)
    if recipe.folder is not None:
        return pretrained(recipe.folder, data.shape, data.classes)
    return diffusing(data.shape, data.classes, recipe.width, recipe.levels, generator("diffusion", recipe.seed))


def train(
    network: Diffusing, recipe: Diffusion, images: Tensor, labels: Tensor, device: torch.device | str = "cpu"
) -> None:
    """The squared error of the predicted noise, on images (N, C, H, W) in [0, 1] and labels (N,), in place.

    Ho et al. 2020, algorithm 1; kept is a moving average of the weights, as there. Ends in eval mode. RecipeError as
    soon as a loss is not finite. A network from a folder stays as it is.
    """
    network.to(device).train()
    if recipe.folder is None:
        _train(network, recipe, images, labels, device)
    network.eval()


def _train(
    network: Diffusing, recipe: Diffusion, images: Tensor, labels: Tensor, device: torch.device | str = "cpu"
) -> None:
    rng = generator("training", recipe.seed)
    adam = torch.optim.Adam(network.parameters(), recipe.rate)
    total = recipe.epochs * math.ceil(len(images) / recipe.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, total)
    average, steps = [weight.detach().clone() for weight in network.parameters()], 0
    for epoch in range(1, recipe.epochs + 1):
        losses = torch.zeros((), device=device)
        for chosen in torch.randperm(len(images), generator=rng).split(recipe.batch):
            loss = error(network, images[chosen], labels[chosen], recipe.dropped, rng, device)
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
            losses += loss.detach()
            steps += 1
            share = 1 - min(MEMORY, (1 + steps) / (10 + steps))  # the first weights are soon forgotten
            torch._foreach_lerp_(average, [weight.detach() for weight in network.parameters()], share)
        if not torch.isfinite(losses):
            raise RecipeError(
                f"diffusion {recipe.hash} of {recipe.images}: the training diverged in epoch {epoch} of "
                f"{recipe.epochs}; try a `rate` below {recipe.rate:g}"
            )
    with torch.no_grad():
        for weight, kept in zip(network.parameters(), average, strict=True):
            weight.copy_(kept)


def error(
    network: Diffusing,
    images: Tensor,
    labels: Tensor,
    dropped: float,
    rng: torch.Generator,
    device: torch.device | str = "cpu",
) -> Tensor:
    """mean |noise - predicted|^2 at times and of noise that `rng` draws, without the class for a share `dropped`."""
    t = torch.randint(len(network.alphas), (len(images),), generator=rng)
    noise = torch.randn(images.shape, generator=rng)
    left_out = torch.rand(len(images), generator=rng) < dropped
    given = torch.where(left_out, network.classes, labels)
    level = network.alphas.cpu()[t].view(-1, 1, 1, 1)
    noisy = level.sqrt() * (2 * images - 1) + (1 - level).sqrt() * noise
    return F.mse_loss(network(noisy.to(device), t.to(device), given.to(device)), noise.to(device))


def pretrained(folder: Path, shape: tuple[int, ...], classes: int) -> Diffusing:
    """What diffusers saved as a pipeline: a UNet2DModel in `unet/`, its noise in `scheduler/`. Nothing is downloaded.

    RecipeError unless it is whole, predicts noise, and is of images of `shape` (C, H, W) and of no classes or of these
    and a last one that means none.
    """
    there, diffusers = place(folder), library()
    for inside in ("unet", "scheduler"):
        if not (there / inside).is_dir():
            raise RecipeError(f"{there}: no folder {inside}/, expected what the `save_pretrained` of a pipeline writes")
    local: dict[str, Any] = {"local_files_only": True}
    try:
        scheduler = diffusers.DDPMScheduler.from_pretrained(there / "scheduler", **local)
        unet, info = diffusers.UNet2DModel.from_pretrained(
            there / "unet", use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True, **local
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as fault:
        raise RecipeError(f"{there}: no diffusion model that diffusers can read ({_short(fault)})") from None
    if odd := [name for names in info.values() for name in names]:
        raise RecipeError(f"{there}: the weights do not fit the network, {_short(odd[0])} and {len(odd) - 1} more")
    _refuse_misfit(there, unet.config, scheduler, shape, classes)
    return Diffusing(unet, classes if unet.config.num_class_embeds else 0, scheduler.alphas_cumprod)


def _refuse_misfit(there: Path, unet: Any, scheduler: Any, shape: tuple[int, ...], classes: int) -> None:
    side = unet.sample_size
    sides = tuple(side) if isinstance(side, (tuple, list)) else (side, side)
    expected = {
        "images": ((unet.in_channels, *sides), tuple(shape)),
        "channels of what it predicts": (unet.out_channels, shape[0]),
        "kind of classes": (unet.class_embed_type, None),
        "what it predicts": (scheduler.config.prediction_type, "epsilon"),
    }
    if unet.num_class_embeds is not None:
        expected["classes, one of them none"] = (unet.num_class_embeds, classes + 1)
    for what, (found, wanted) in expected.items():
        if found != wanted:
            raise RecipeError(f"{there}: {what}: found {found}, expected {wanted}")
    if not float(scheduler.alphas_cumprod.min()) > 0:
        raise RecipeError(f"{there}: nothing is left of an image at the last time, and its noise alone is predicted")


def _short(what: object) -> str:
    return " ".join(str(what).split())[:200]
