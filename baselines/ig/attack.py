"""Inverting Gradients (Geiping, Bauermeister, Droege and Moeller, NeurIPS 2020): cosine distance and a prior."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from leakboard.attack.descent import signed_adam
from leakboard.attack.labels import idlg_label
from leakboard.attack.lbfgs import minimise
from leakboard.attack.matching import Matching, cosine_distance, squared_distance
from leakboard.attack.priors import total_variation
from leakboard.threat import Gradient, Reconstruction


@dataclass(frozen=True)
class InvertingGradients:
    """Equation 4: cosine distance + TV, signed Adam in the box; `euclidean` is the baseline of Table 1 (L2, L-BFGS).

    rate: of Adam, in pixels of [0, 1]. differs: the paper's 0.1 is in units of the data's standard deviation, about
    0.25 of the pixel range, which makes 0.025 here; likewise its N(0, 1) start is N(0.5, 0.25^2).
    restarts: independent starts that share the budget; the one with the lowest cost is handed in.
    """

    method: Literal["cosine", "euclidean"] = "cosine"
    steps: int = 4800
    rate: float = 0.025
    tv: float = 1.0e-4
    restarts: int = 1
    history: int = 100

    def skips(self, benchmark) -> str | None:
        if benchmark.batch > 1 and "labels" not in benchmark.threat.knows:
            return "without labels the paper treats one image only"
        return None

    def reconstruct(self, seen: Gradient, rng: torch.Generator) -> Reconstruction:
        labels = idlg_label(seen) if seen.labels is None else seen.labels
        share = self.steps if seen.budget is None else min(self.steps, seen.budget // self.restarts)
        search = self._cosine if self.method == "cosine" else self._euclidean
        ends = [search(seen, labels, share, rng) for _ in range(self.restarts)]
        images, loss = min(ends, key=lambda end: end[1])
        return Reconstruction(images, labels, {"loss": loss})

    def _cosine(self, seen: Gradient, labels: Tensor, steps: int, rng: torch.Generator) -> tuple[Tensor, float]:
        matching = Matching(seen, cosine_distance)

        def objective(images: Tensor) -> tuple[Tensor, Tensor]:
            value, (gradient,) = matching(images, labels, [images])
            variation = total_variation(images)
            (smoother,) = torch.autograd.grad(variation, images)
            return value + self.tv * variation.detach(), gradient + self.tv * smoother

        start = (0.5 + 0.25 * torch.randn(seen.shape, generator=rng)).to(seen.device)
        return signed_adam(objective, start, steps, self.rate, observe=seen.snapshot)

    def _euclidean(self, seen: Gradient, labels: Tensor, steps: int, rng: torch.Generator) -> tuple[Tensor, float]:
        matching = Matching(seen, squared_distance)

        def objective(point: Tensor) -> tuple[Tensor, Tensor]:
            images = point.view(seen.shape).clone().requires_grad_()
            value, (gradient,) = matching(images, labels, [images])
            return value, gradient.flatten()

        def observe(step: int, point: Tensor, value: Tensor) -> None:
            seen.snapshot(step, point.view(seen.shape), value)

        start = (0.5 + 0.25 * torch.randn(seen.shape, generator=rng)).to(seen.device).flatten()
        found = minimise(objective, start, steps - 1, history=self.history, observe=observe)
        return found.point.view(seen.shape), found.value
