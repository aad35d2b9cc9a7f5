"""Defences in what a client sends: noise, a bound on its length, entries left out, fewer digits.

Each takes {parameter: tensor}, a gradient or a change of the model, and returns the same. Noise is drawn on the CPU.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from leakboard.federation.rounds import State
from leakboard.victim.defences.points import acts_on


@acts_on("message")
def clipping(tensors: State, rng: torch.Generator, *, norm: float) -> State:
    """The whole message shortened to an L2 norm of at most `norm`."""
    length = torch.stack([tensor.double().square().sum() for tensor in tensors.values()]).sum().sqrt()
    return {key: tensor * _shortened(length, norm).to(tensor) for key, tensor in tensors.items()}


@acts_on("message")
def layer_clipping(tensors: State, rng: torch.Generator, *, norm: float) -> State:
    """Every tensor shortened to an L2 norm of at most `norm`."""
    return {key: tensor * _shortened(tensor.double().norm(), norm).to(tensor) for key, tensor in tensors.items()}


def _shortened(length: Tensor, norm: float) -> Tensor:
    return (norm / length.clamp_min(torch.finfo(length.dtype).tiny)).clamp_max(1.0)


@acts_on("message")
def gaussian_noise(tensors: State, rng: torch.Generator, *, deviation: float) -> State:
    """Gaussian noise of this standard deviation on every entry; 0 leaves every bit as it is."""
    if not deviation:
        return tensors
    noise = {key: torch.randn(tensor.shape, generator=rng, dtype=tensor.dtype) for key, tensor in tensors.items()}
    return {key: tensor + deviation * noise[key].to(tensor.device) for key, tensor in tensors.items()}


@acts_on("message")
def laplacian_noise(tensors: State, rng: torch.Generator, *, deviation: float) -> State:
    """Laplacian noise of this standard deviation on every entry; 0 leaves every bit as it is."""
    if not deviation:
        return tensors
    return {key: tensor + deviation * _laplacian(tensor, rng) for key, tensor in tensors.items()}


def _laplacian(like: Tensor, rng: torch.Generator) -> Tensor:
    """Draws of variance 1: the difference of two exponential ones is Laplacian, of variance 2."""
    first, second = (torch.empty(like.shape, dtype=like.dtype).exponential_(generator=rng) for _ in range(2))
    return ((first - second) / math.sqrt(2)).to(like.device)


@acts_on("message")
def pruning(tensors: State, rng: torch.Generator, *, share: float) -> State:
    """The `share` of the entries of every tensor that are smallest in magnitude set to 0 (Lin et al. 2018)."""
    return {key: _pruned(tensor, share) for key, tensor in tensors.items()}


def _pruned(tensor: Tensor, share: float) -> Tensor:
    if share > 1:
        raise ValueError(f"pruning.share is {share:g}, expected one of 0 to 1")
    kept = tensor.flatten().clone()
    kept[kept.abs().argsort(stable=True)[: round(share * len(kept))]] = 0
    return kept.view_as(tensor)


@acts_on("message")
def half_precision(tensors: State, rng: torch.Generator) -> State:
    """Sent as float16, which has 11 digits of the 24 of float32."""
    return {key: tensor.half().to(tensor.dtype) for key, tensor in tensors.items()}


@acts_on("message")
def quantisation(tensors: State, rng: torch.Generator, *, bits: float) -> State:
    """Every tensor on 2^bits - 1 levels, as many on both sides of 0 and the outermost at its largest magnitude."""
    return {key: _quantised(tensor, 2 ** (bits - 1) - 1) for key, tensor in tensors.items()}


def _quantised(tensor: Tensor, levels: float) -> Tensor:
    if levels < 1 or levels != int(levels):
        raise ValueError("quantisation.bits is no whole number from 2 on")
    step = tensor.abs().max() / levels if tensor.numel() else tensor.new_zeros(())
    return (tensor / step).round() * step if step > 0 else tensor
