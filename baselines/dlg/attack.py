"""Deep Leakage from Gradients (Zhu, Liu and Han, NeurIPS 2019): images and labels with the observed gradient."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leakboard.attack.lbfgs import Objective, minimise
from leakboard.attack.matching import Matching, Observed, squared_distance
from leakboard.threat import Reconstruction, snapshots

# (dummy samples (P, B, ...), the rows that move, the problems under way (Q,)) -> objective of those
ObjectiveOf = Callable[[Tensor, Tensor, Tensor], Objective]


@dataclass(frozen=True)
class DLG:
    """Algorithm 1: images and label logits start from N(0, 1); L-BFGS moves both along the squared distance.

    one_by_one: in a batch, move one sample per outer step; this breaks the symmetry between samples (section 3.3).
    enough: the matching loss at which the search ends, as in the iDLG paper's comparison of the two.
    last_iterate: hand in where the search ended, as the public code does, in place of the best point that it met.
    """

    outer_steps: int = 300
    inner_steps: int = 20
    rate: float = 1.0
    history: int = 100
    enough: float = 1.0e-6
    one_by_one: bool = False
    last_iterate: bool = False

    def reconstruct(self, seen: Observed, rng: torch.Generator) -> Reconstruction:
        return self.reconstruct_many([seen], [rng])[0]

    def reconstruct_many(self, seen: list[Observed], rng: list[torch.Generator]) -> list[Reconstruction]:
        shape, pixels = seen[0].shape, math.prod(seen[0].shape[1:])
        matching = Matching(seen, squared_distance)
        scale = matching.square.clamp(max=1)
        # One row per sample: its pixels, then its label logits.
        starts = [
            torch.cat([torch.randn(shape[0], size, generator=one) for size in (pixels, seen[0].classes)], 1)
            for one in rng
        ]

        def images(dummy: Tensor) -> Tensor:
            return dummy[..., :pixels].reshape(-1, *shape)

        def objective(dummy: Tensor, rows: Tensor, going: Tensor) -> Objective:
            def at(moving: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
                problems = going[which]
                whole = dummy[problems].index_copy(1, rows, moving.view(len(which), len(rows), -1)).requires_grad_()
                values, (gradient,) = matching(images(whole), whole[..., pixels:].softmax(2), [whole], problems)
                return values, gradient[:, rows].flatten(1)

            return at

        def observe(step: int, dummy: Tensor, values: Tensor, which: Tensor) -> None:
            snapshots(seen, step, images(dummy.view(len(which), shape[0], -1)), values, which)

        search = self._one_by_one if self.one_by_one and shape[0] > 1 else self._jointly
        budget = (seen[0].budget or 10**9) // matching.passes
        dummy, info = search(objective, torch.stack(starts).to(seen[0].device), scale, budget, observe)
        labels = dummy[..., pixels:].argmax(2)
        return [Reconstruction(*parts) for parts in zip(images(dummy), labels, info, strict=True)]

    def _jointly(
        self, objective: ObjectiveOf, dummy: Tensor, scale: Tensor, budget: int, observe: Callable
    ) -> tuple[Tensor, list[dict[str, float]]]:
        problems, samples = (torch.arange(size, device=dummy.device) for size in dummy.shape[:2])
        found = minimise(
            objective(dummy, samples, problems),
            dummy.flatten(1),
            min(self.outer_steps * self.inner_steps, budget - 1),
            rate=self.rate,
            history=self.history,
            enough=self.enough,
            scale=scale,
            observe=observe,
        )
        ends = zip(found.restarts.tolist(), found.value.tolist(), strict=True)
        point = found.last if self.last_iterate else found.point
        return point.view_as(dummy), [{"restarts": restarts, "loss": loss} for restarts, loss in ends]

    def _one_by_one(
        self, objective: ObjectiveOf, dummy: Tensor, scale: Tensor, budget: int, observe: Callable
    ) -> tuple[Tensor, list[dict[str, float]]]:
        going = torch.arange(len(dummy), device=dummy.device)
        restarts = torch.zeros_like(going)
        losses = torch.full((len(dummy),), math.inf, device=dummy.device)
        inner = min(self.inner_steps, budget - 1)
        for outer in range(min(self.outer_steps, budget // (inner + 1))):
            rows = torch.tensor([outer % dummy.shape[1]], device=dummy.device)
            start = dummy[going][:, rows].flatten(1)
            found = minimise(objective(dummy, rows, going), start, inner, rate=self.rate, scale=scale[going])
            dummy[going[:, None], rows] = found.point[:, None]
            restarts[going] += found.restarts
            losses[going] = found.value
            observe(outer + 1, dummy[going], found.value, going)
            going = going[found.value > self.enough * scale[going]]
            if not len(going):
                break
        ends = zip(restarts.tolist(), losses.tolist(), strict=True)
        return dummy, [{"restarts": count, "loss": loss} for count, loss in ends]
