"""Layer by layer, before anybody names a class: each learns to undo what is done to the output of those below it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakboard.config.trainings import Pretraining
from leakboard.models.stack import DenoisingStack
from leakboard.recipes.store import RecipeError
from leakboard.rng import generator


def pretrain(network: nn.Module, spec: Pretraining, images: Tensor, seed: int, device: torch.device | str) -> None:
    """Denoising autoencoders with tied weights (Vincent et al. 2008) on images (N, C, H, W), in place.

    Cross-entropy of what is decoded from inputs of which a share is put to 0, by Adam. RecipeError where the network
    has no such layers.
    """
    stack = next((module for module in network.modules() if isinstance(module, DenoisingStack)), None)
    if stack is None:
        raise RecipeError(
            f"pretraining: found a {type(network).__name__}, expected a stack of autoencoders, as `dae` is"
        )
    rng, given = generator("pretraining", seed), images.flatten(1)
    for index in range(len(stack.layers)):
        layer = stack.layer(index)
        visible = nn.Parameter(getattr(stack, f"visible{index}").clone())
        _autoencode(layer, visible, given, spec, rng, device)
        getattr(stack, f"visible{index}").copy_(visible.detach())
        with torch.no_grad():
            given = layer(given.to(device)).sigmoid().cpu()


def _autoencode(
    layer: nn.Linear,
    visible: nn.Parameter,
    given: Tensor,
    spec: Pretraining,
    rng: torch.Generator,
    device: torch.device | str,
) -> None:
    """One layer on its inputs (N, D) in [0, 1]."""
    adam = torch.optim.Adam([*layer.parameters(), visible], spec.learning_rate)
    for _ in range(spec.epochs):
        for chosen in torch.randperm(len(given), generator=rng).split(spec.batch):
            clean = given[chosen].to(device)
            kept = torch.rand(clean.shape, generator=rng).to(device) >= spec.corruption
            decoded = F.linear(layer(clean * kept).sigmoid(), layer.weight.T, visible)
            loss = F.binary_cross_entropy_with_logits(decoded, clean)
            adam.zero_grad()
            loss.backward()
            adam.step()
