"""Defences in the form of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from leakboard.rng import generator, seeded
from leakboard.victim.defences.points import acts_on


@acts_on("network")
def precode(model: nn.Module, rng: torch.Generator, *, width: float = 256) -> nn.Module:
    """A variational bottleneck of `width` in front of the last linear layer (Scheliga, Maeder and Seeland 2022, s. 3).

    differs: the loss stays the victim's own, without 1e-3 times the divergence of what is encoded from N(0, 1).
    """
    layer = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with seeded("precode", int(torch.randint(2**31, (1,), generator=rng))):
        bottleneck = Bottleneck(layer.in_features, int(width))
    for module in model.modules():
        for name, child in module.named_children():
            if child is layer:
                setattr(module, name, nn.Sequential(bottleneck, layer))
                return model
    raise ValueError("the network is one linear layer, in front of which a bottleneck has no place")


class Bottleneck(nn.Module):
    """Features (B, F) -> features (B, F), decoded from a draw of the N(mean, deviation^2) that they are encoded to.

    Every pass draws anew, from what the global generator was seeded with and the number of the pass. It draws nothing
    from that generator, which an attack must leave alone; and what the victim drew is not in an attacker's copy.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(features, 2 * width), nn.Linear(width, features)
        self.passes = 0

    def forward(self, features: Tensor) -> Tensor:
        mean, spread = self.encode(features).chunk(2, 1)
        self.passes += 1
        rng = generator("bottleneck", torch.initial_seed(), self.passes)
        drawn = torch.randn(mean.shape, generator=rng).to(mean)
        return self.decode(mean + nn.functional.softplus(spread - 5) * drawn)
