"""Robbing the Fed (Fowl, Geiping, Czaja, Goldblum and Goldstein 2022): an imprint block in front of a network."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from leakboard.attack.imprint import Connection, Imprint, Measure, gradient_of, measurement, read
from leakboard.threat import Gradient, ModelUpdate, Public, Reconstruction


@dataclass(frozen=True)
class RobbingTheFed:
    """Section 3: k bins of a linear measurement; the difference of neighbouring rows is what lies in a bin (eq. 5).

    edges: of bins of equal mass, from the measurements of public images themselves (`public`), or from a normal or
    Laplace law with their mean and deviation. one_shot: of that many bins in all, the `bins` middle ones (section 4.3).
    block: cumulative (ReLU), or sparse: a unit is open in its own bin only, which survives local steps (section 4.4).
    tolerance: of the largest bias gradient, below which a row holds nothing: single precision tells no less apart.
    """

    bins: int = 128
    measure: Measure = "mean"
    mode: int = 32
    edges: Literal["public", "normal", "laplace"] = "public"
    gain: float = 1.0e-3
    connection: Connection = "linear"
    block: Literal["cumulative", "sparse"] = "cumulative"
    one_shot: int | None = None
    tolerance: float = 1e-7

    def skips(self, benchmark) -> str | None:
        return "an honest server plants no block" if benchmark.threat.conduct == "honest" else None

    def craft(self, model: nn.Module, public: Public | None, rng: torch.Generator) -> nn.Module:
        if public is None:
            raise ValueError("the bins need public images")
        shape = public.images.shape[1:]
        row = measurement(self.measure, shape.numel(), self.mode, rng)
        edges = self._edges(public.images.flatten(1).cpu() @ row)
        return Imprint(model, row, edges, shape, self.gain, self.connection, self.block == "sparse").train(
            model.training
        )

    def _edges(self, values: Tensor) -> Tensor:
        """Where the bins begin (bins,), ascending; the first lies below every measurement, if all bins are laid."""
        count = self.one_shot or self.bins
        mass = (torch.arange(self.bins) + (count - self.bins) // 2) / count
        if self.edges == "public":
            edges = values.quantile(mass)
        else:
            law = torch.distributions.Normal if self.edges == "normal" else torch.distributions.Laplace
            scale = values.std() if self.edges == "normal" else values.std() / 2**0.5
            edges = law(values.mean(), scale).icdf(mass)
        if mass[0] == 0:
            edges[0] = values.min() - 10 * values.std()
        return edges

    def reconstruct(self, seen: Gradient | ModelUpdate, rng: torch.Generator) -> Reconstruction:
        weight, bias = gradient_of(seen.model.first, seen.model, seen.gradient)
        if self.block == "cumulative":
            weight, bias = (part - torch.cat([part[1:], torch.zeros_like(part[:1])]) for part in (weight, bias))
        found = read(weight, bias, self.tolerance)[: seen.shape[0]]
        return Reconstruction(found.view(-1, *seen.shape[1:]))
