"""Deep Leakage from Gradients (Zhu, Liu and Han, NeurIPS 2019): images and labels with the observed gradient."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leakboard.attack.lbfgs import Objective, Observer, minimise
from leakboard.attack.matching import Matching, squared_distance
from leakboard.threat import Gradient, Reconstruction

ObjectiveOf = Callable[[Tensor, Tensor], Objective]  # (dummy samples, the rows that move) -> objective


@dataclass(frozen=True)
class DLG:
    """Algorithm 1: images and label logits start from N(0, 1); L-BFGS moves both along the squared distance.

    one_by_one: in a batch, move one sample per outer step; this breaks the symmetry between samples (section 3.3).
    enough: the matching loss at which the search ends, as in the iDLG paper's comparison of the two.
    """

    outer_steps: int = 300
    inner_steps: int = 20
    rate: float = 1.0
    history: int = 100
    enough: float = 1.0e-6
    one_by_one: bool = False

    def reconstruct(self, seen: Gradient, rng: torch.Generator) -> Reconstruction:
        batch, pixels = seen.shape[0], math.prod(seen.shape[1:])
        matching = Matching(seen, squared_distance)
        # One row per sample: its pixels, then its label logits.
        start = torch.cat([torch.randn(batch, size, generator=rng) for size in (pixels, seen.classes)], dim=1)

        def images(dummy: Tensor) -> Tensor:
            return dummy.view(batch, -1)[:, :pixels].view(seen.shape)

        def objective(dummy: Tensor, rows: Tensor) -> Objective:
            def at(moving: Tensor) -> tuple[Tensor, Tensor]:
                whole = dummy.index_copy(0, rows, moving.view(len(rows), -1)).requires_grad_()
                value, (gradient,) = matching(images(whole), whole[:, pixels:].softmax(1), [whole])
                return value, gradient[rows].flatten()

            return at

        def observe(step: int, dummy: Tensor, value: Tensor | float) -> None:
            seen.snapshot(step, images(dummy), value)

        search = self._one_by_one if self.one_by_one and batch > 1 else self._jointly
        dummy, info = search(objective, start.to(seen.device), seen.budget or 10**9, observe)
        return Reconstruction(images(dummy), dummy[:, pixels:].argmax(1), info)

    def _jointly(
        self, objective: ObjectiveOf, dummy: Tensor, budget: int, observe: Observer
    ) -> tuple[Tensor, dict[str, float]]:
        found = minimise(
            objective(dummy, torch.arange(len(dummy), device=dummy.device)),
            dummy.flatten(),
            min(self.outer_steps * self.inner_steps, budget - 1),
            rate=self.rate,
            history=self.history,
            enough=self.enough,
            observe=observe,
        )
        return found.point.view_as(dummy), {"restarts": found.restarts, "loss": found.value}

    def _one_by_one(
        self, objective: ObjectiveOf, dummy: Tensor, budget: int, observe: Observer
    ) -> tuple[Tensor, dict[str, float]]:
        restarts, loss = 0, math.inf
        inner = min(self.inner_steps, budget - 1)
        for outer in range(min(self.outer_steps, budget // (inner + 1))):
            rows = torch.tensor([outer % len(dummy)], device=dummy.device)
            found = minimise(objective(dummy, rows), dummy[rows].flatten(), inner, rate=self.rate)
            dummy = dummy.index_copy(0, rows, found.point[None])
            restarts, loss = restarts + found.restarts, found.value
            observe(outer + 1, dummy, loss)
            if loss <= self.enough:
                break
        return dummy, {"restarts": restarts, "loss": loss}
