"""Defences in a step of local training: what takes the place of the gradient of a batch.

Each takes (model, loss, images (B, C, H, W), labels (B,), rng) and returns one tensor per parameter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from leakboard.victim.defences.points import acts_on


@acts_on("local_step")
def dp_sgd(
    model: nn.Module,
    loss: nn.Module,
    images: Tensor,
    labels: Tensor,
    rng: torch.Generator,
    *,
    norm: float,
    multiplier: float,
) -> Sequence[Tensor]:
    """Every example's gradient clipped to `norm`, N(0, (multiplier norm)^2) on their sum, over B (Abadi et al. 2016,
    algorithm 1). ValueError where examples meet in batch norm, and there is no gradient of one.
    """
    slopes = example_gradients(model, loss, images, labels)
    lengths = torch.stack([slope.flatten(1).square().sum(1) for slope in slopes]).sum(0).sqrt()
    weights = (norm / lengths.clamp_min(torch.finfo(lengths.dtype).tiny)).clamp_max(1.0)
    sums = [torch.einsum("b,b...->...", weights, slope) for slope in slopes]
    noise = [torch.randn(total.shape, generator=rng, dtype=total.dtype).to(total.device) for total in sums]
    return [(total + multiplier * norm * drawn) / len(images) for total, drawn in zip(sums, noise, strict=True)]


def example_gradients(model: nn.Module, loss: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """The gradient of every example by itself: one tensor (B, ...) per parameter."""
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training for module in model.modules()):
        raise ValueError("dp_sgd clips single examples, which meet in a batch norm in train mode")
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())

    def alone(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return loss(functional_call(model, {**parameters, **buffers}, (image[None],)), label[None])

    fixed = {name: parameter.detach() for name, parameter in parameters.items()}
    slopes = vmap(grad(alone), in_dims=(None, 0, 0), randomness="different")(fixed, images, labels)
    return [slopes[name].detach() for name in parameters]


@acts_on("local_step")
def soteria(
    model: nn.Module, loss: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator, *, share: float
) -> Sequence[Tensor]:
    """The gradient without those features of the last linear layer that give the input away most (Sun et al. 2021):
    the `share` with the largest |r_i| / |dr_i/dx|, means over the batch. Their columns of its weight's gradient are 0.
    """
    if share > 1:
        raise ValueError(f"soteria.share is {share:g}, expected one of 0 to 1")
    layer = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    exposed = exposure(model, layer, images)
    kept = torch.ones_like(exposed)
    kept[exposed.argsort(descending=True, stable=True)[: round(share * len(kept))]] = 0
    parameters = [parameter.requires_grad_() for parameter in model.parameters()]
    slopes = torch.autograd.grad(loss(model(images), labels), parameters)
    return [g * kept if weight is layer.weight else g for g, weight in zip(slopes, parameters, strict=True)]


CHUNK = 64  # features whose slopes are computed at once


def exposure(model: nn.Module, layer: nn.Linear, images: Tensor) -> Tensor:
    """|r_i| / |dr_i/dx| of every input r_i of the layer (features,), means over the batch; 0 where r_i is.

    How far the input moves for a feature that is taken away (section 4.2): nothing is left of one that does not move.
    """
    inputs: list[Tensor] = []
    x = images.detach().requires_grad_()
    handle = layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    try:
        model(x)
    finally:
        handle.remove()
    hidden, slopes = inputs[0], []
    for chosen in torch.eye(hidden.shape[1], device=hidden.device).split(CHUNK):
        ones = chosen[:, None].expand(-1, len(images), -1)
        (slope,) = torch.autograd.grad(hidden, x, ones, retain_graph=True, is_grads_batched=True)
        slopes.append(slope.flatten(2).norm(dim=2))  # (chunk, B)
    lengths, size = torch.cat(slopes).T, hidden.detach().abs()
    return torch.where(size > 0, size / lengths.clamp_min(torch.finfo(lengths.dtype).tiny), 0.0).mean(0)
