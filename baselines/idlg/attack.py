"""Improved Deep Leakage from Gradients (Zhao, Mopuri and Bilen 2020): the label in closed form, then the image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from leakboard.attack.labels import idlg_label
from leakboard.attack.lbfgs import minimise
from leakboard.attack.matching import Matching, Observed, squared_distance
from leakboard.threat import Reconstruction, snapshots


@dataclass(frozen=True)
class IDLG:
    """DLG's search over the image alone, with the label read off the last layer. `steps: 0` hands in the label only."""

    steps: int = 6000
    rate: float = 1.0
    history: int = 100
    enough: float = 1.0e-6

    def skips(self, benchmark) -> str | None:
        return "the rule reads one label from one image" if benchmark.batch > 1 else None

    def reconstruct(self, seen: Observed, rng: torch.Generator) -> Reconstruction:
        return self.reconstruct_many([seen], [rng])[0]

    def reconstruct_many(self, seen: list[Observed], rng: list[torch.Generator]) -> list[Reconstruction]:
        shape, labels = seen[0].shape, torch.stack([idlg_label(one) for one in seen])
        if self.steps == 0:
            return [Reconstruction(torch.empty(0, *shape[1:]), label) for label in labels]
        matching = Matching(seen, squared_distance)

        def objective(points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
            images = points.view(-1, *shape).clone().requires_grad_()
            values, (gradient,) = matching(images, labels[which], [images], which)
            return values, gradient.flatten(1)

        budget = seen[0].budget
        found = minimise(
            objective,
            torch.stack([torch.randn(shape, generator=one) for one in rng]).to(seen[0].device).flatten(1),
            self.steps if budget is None else min(self.steps, budget // matching.passes - 1),
            rate=self.rate,
            history=self.history,
            enough=self.enough,
            scale=matching.square.clamp(max=1),
            observe=lambda step, points, *rest: snapshots(seen, step, points.view(-1, *shape), *rest),
        )
        ends = zip(found.point.view(-1, *shape), labels, found.restarts.tolist(), found.value.tolist(), strict=True)
        return [Reconstruction(x, label, {"restarts": r, "loss": loss}) for x, label, r, loss in ends]
