"""Inverting Gradients (Geiping, Bauermeister, Droege and Moeller, NeurIPS 2020): cosine distance and a prior."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from leakboard.attack.costs import where_observed
from leakboard.attack.descent import signed_adam
from leakboard.attack.labels import idlg_label
from leakboard.attack.lbfgs import minimise
from leakboard.attack.matching import Cost, Matching, Observed, Precision, cosine_distance, squared_distance
from leakboard.attack.priors import total_variation_slope
from leakboard.threat import Reconstruction, snapshots


@dataclass(frozen=True)
class InvertingGradients:
    """Equation 4: cosine distance + TV, signed Adam in the box; `euclidean` is the baseline of Table 1 (L2, L-BFGS).

    rate: of Adam, in pixels of [0, 1]. differs: the paper's 0.1 is in units of the data's standard deviation, about
    0.25 of the pixel range, which makes 0.025 here; likewise its N(0, 1) start is N(0.5, 0.25^2).
    restarts: independent starts that share the budget; the one with the lowest cost is handed in.
    precision: bf16 takes the victim's forward pass in bfloat16; float64 takes everything in double.
    simulated: of a model update, whether its local steps are gone through (the paper's federated averaging) or it is
    taken for one gradient. assumed_rate: the client's learning rate as the attacker takes it, over the true one.
    adaptive: what a defence has set to zero, as pruning and Soteria do, is left out of the comparison.
    """

    method: Literal["cosine", "euclidean"] = "cosine"
    steps: int = 4800
    rate: float = 0.025
    tv: float = 1.0e-4
    restarts: int = 1
    history: int = 100
    precision: Precision = "float32"
    simulated: bool = True
    assumed_rate: float = 1.0
    adaptive: bool = False

    def skips(self, benchmark) -> str | None:
        if benchmark.batch > 1 and "labels" not in benchmark.threat.knows:
            return "without labels the paper treats one image only"
        return None

    def reconstruct(self, seen: Observed, rng: torch.Generator) -> Reconstruction:
        return self.reconstruct_many([seen], [rng])[0]

    def reconstruct_many(self, seen: list[Observed], rng: list[torch.Generator]) -> list[Reconstruction]:
        labels = torch.stack([idlg_label(one) if one.labels is None else one.labels for one in seen])
        search = self._cosine if self.method == "cosine" else self._euclidean
        cost: Cost = cosine_distance if self.method == "cosine" else squared_distance
        cost = where_observed(cost) if self.adaptive else cost
        matching = Matching(seen, cost, self.precision, self.simulated, self.assumed_rate)
        budget = seen[0].budget
        steps = self.steps if budget is None else min(self.steps, budget // self.restarts // matching.passes)
        images, losses = search(seen, matching, labels, steps, rng)
        for _ in range(self.restarts - 1):
            others, values = search(seen, matching, labels, steps, rng)
            better = values < losses
            images = torch.where(better.view(-1, 1, 1, 1, 1), others, images)
            losses = torch.where(better, values, losses)
        ends = zip(images, labels, losses.tolist(), strict=True)
        return [Reconstruction(x, label, {"loss": loss}) for x, label, loss in ends]

    def _cosine(
        self, seen: list[Observed], matching: Matching, labels: Tensor, steps: int, rng: list[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        def objective(images: Tensor) -> tuple[Tensor, Tensor]:
            values, (gradient,) = matching(images, labels, [images])
            variation, slope = total_variation_slope(images.detach())
            return values + self.tv * variation, gradient + self.tv * slope

        start = torch.stack([0.5 + 0.25 * torch.randn(seen[0].shape, generator=one) for one in rng])
        start = start.to(seen[0].device, matching.dtype)
        observe = partial(snapshots, seen)
        return signed_adam(objective, start, steps, self.rate, observe=observe)

    def _euclidean(
        self, seen: list[Observed], matching: Matching, labels: Tensor, steps: int, rng: list[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        shape = seen[0].shape

        def objective(points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
            images = points.view(-1, *shape).clone().requires_grad_()
            values, (gradient,) = matching(images, labels[which], [images], which)
            return values, gradient.flatten(1)

        def observe(step: int, points: Tensor, values: Tensor, which: Tensor) -> None:
            snapshots(seen, step, points.view(-1, *shape), values, which)

        start = torch.stack([0.5 + 0.25 * torch.randn(shape, generator=one) for one in rng])
        start = start.to(seen[0].device, matching.dtype).flatten(1)
        scale = matching.square.clamp(max=1)
        found = minimise(objective, start, steps - 1, history=self.history, scale=scale, observe=observe)
        return found.point.view(-1, *shape), found.value
