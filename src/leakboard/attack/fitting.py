"""Fitting a restorer to what an attack itself does to images, on images that the attacker has."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

BATCH, RATE = 32, 1e-3


def paired(got: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W), reconstructed, each with the true one that is its own: squared distances sum to the least.

    A batch comes out in no order where labels are equal.
    """
    apart = torch.cdist(got.flatten(1), true.flatten(1)).square()
    return got, true[torch.from_numpy(linear_sum_assignment(apart.cpu().numpy())[1]).to(true.device)]


def fitted(restorer: nn.Module, got: Tensor, true: Tensor, updates: int, rng: torch.Generator) -> nn.Module:
    """A copy of the restorer after so many updates of Adam on pairs (N, C, H, W), mirrored at random; L1.

    The rate falls to 0 along a cosine. The copy is in eval mode, and no parameter wants a gradient.
    """
    network = copy.deepcopy(restorer).requires_grad_().train()
    adam = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, updates)
    for _ in range(updates):
        chosen = torch.randint(len(got), (BATCH,), generator=rng).to(got.device)
        sides = [3] if torch.rand((), generator=rng) < 0.5 else []
        error = F.l1_loss(network(got[chosen].flip(sides)), true[chosen].flip(sides))
        adam.zero_grad()
        error.backward()
        adam.step()
        schedule.step()
    return network.requires_grad_(False).eval()
