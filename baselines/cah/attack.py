"""Curious abandon honesty (Boenisch et al., EuroS&P 2023): trap weights in the first linear layer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakboard.attack.imprint import gradient_of, of_8_bits, read
from leakboard.attack.matching import Observed
from leakboard.models import Normalise
from leakboard.threat import Reconstruction


@dataclass(frozen=True)
class TrapWeights:
    """Section 5.2: a random half of every row is negative, the other half its mirror image times `scale` < 1.

    A unit so rarely opens that often a single image of the batch does it. trap False: the passive attack, which leaves
    N(0, deviation^2) weights as they are. What does not have 8 bits is a mixture and not handed in, if anything has.
    """

    scale: float = 0.95
    deviation: float = 0.5
    trap: bool = True
    tolerance: float = 1e-5

    def skips(self, benchmark) -> str | None:
        honest = benchmark.threat.conduct == "honest"
        return "an honest server sets no trap weights" if self.trap and honest else None

    def craft(self, model: nn.Module, public: object, rng: torch.Generator) -> nn.Module:
        layer = _first(model)
        units, size = layer.weight.shape
        draws = self.deviation * torch.randn(units, size, generator=rng)
        if self.trap:
            order = torch.rand(units, size, generator=rng).argsort(1)
            half = size // 2
            negative = -draws[:, :half].abs()
            mirrored = self.scale * negative[:, torch.randperm(half, generator=rng)].abs()
            rest = draws[:, 2 * half :]
            draws = torch.cat([negative, mirrored, rest], 1).gather(1, order)
        with torch.no_grad():
            layer.weight.copy_(draws)
            layer.bias.zero_()
        return model

    def reconstruct(self, seen: Observed, rng: torch.Generator) -> Reconstruction:
        def pixels(inputs: Tensor) -> Tensor:
            return _before_normalising(seen.model, inputs.view(-1, *seen.shape[1:])).flatten(1)

        found = read(*gradient_of(_first(seen.model), seen.model, seen.gradient), self.tolerance, pixels)
        whole = of_8_bits(found)
        found = found[whole] if whole.any() else found
        return Reconstruction(found[: seen.shape[0]].view(-1, *seen.shape[1:]))


def _first(model: nn.Module) -> nn.Linear:
    """The first layer, which must be linear: it sees the image itself."""
    layer = next(module for module in model.modules() if not list(module.children()) and list(module.parameters()))
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"the first layer is {type(layer).__name__}, trap weights need a linear one")
    return layer


def _before_normalising(model: nn.Module, inputs: Tensor) -> Tensor:
    """The images (N, C, H, W) in [0, 1] that a network which normalises its inputs makes these of."""
    for module in model.modules():
        if isinstance(module, Normalise):
            return inputs * module.std + module.mean
    return inputs
