"""Improved Deep Leakage from Gradients (Zhao, Mopuri and Bilen 2020): the label in closed form, then the image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from leakboard.attack.labels import idlg_label
from leakboard.attack.lbfgs import minimise
from leakboard.attack.matching import Matching, squared_distance
from leakboard.threat import Gradient, Reconstruction


@dataclass(frozen=True)
class IDLG:
    """DLG's search over the image alone, with the label read off the last layer. `steps: 0` hands in the label only."""

    steps: int = 6000
    rate: float = 1.0
    history: int = 100
    enough: float = 1.0e-6

    def skips(self, benchmark) -> str | None:
        return "the rule reads one label from one image" if benchmark.batch > 1 else None

    def reconstruct(self, seen: Gradient, rng: torch.Generator) -> Reconstruction:
        label = idlg_label(seen)
        if self.steps == 0:
            return Reconstruction(torch.empty(0, *seen.shape[1:]), label)
        matching = Matching(seen, squared_distance)

        def objective(point: Tensor) -> tuple[Tensor, Tensor]:
            image = point.view(seen.shape).clone().requires_grad_()
            value, (gradient,) = matching(image, label, [image])
            return value, gradient.flatten()

        found = minimise(
            objective,
            torch.randn(seen.shape, generator=rng).to(seen.device).flatten(),
            self.steps if seen.budget is None else min(self.steps, seen.budget - 1),
            rate=self.rate,
            history=self.history,
            enough=self.enough,
            observe=lambda step, point, value: seen.snapshot(step, point.view(seen.shape), value),
        )
        return Reconstruction(found.point.view(seen.shape), label, {"restarts": found.restarts, "loss": found.value})
