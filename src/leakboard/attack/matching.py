"""Gradient matching, the one place where an attack gets a step of it: the cost of dummy images and where it falls."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from leakboard.attack.costs import Cost, cosine_distance, squared_distance
from leakboard.attack.local_steps import LocalSteps
from leakboard.attack.stack import Stack
from leakboard.attack.step import Factors, Given, Step, Value, bfloat16, one_after_another
from leakboard.threat import Gradient, ModelUpdate

__all__ = ["Cost", "Matching", "Observed", "Precision", "cosine_distance", "squared_distance"]

Precision = Literal["float32", "float64", "bf16"]
Observed = Gradient | ModelUpdate


class Matching:
    """Callable: images (B, C, H, W) and labels -> (cost, derivatives). One call is `passes` gradient evaluations.

    labels are classes (B,) int64 or probabilities (B, classes); what carries a graph may be differentiated.
    Of a sequence of P observations it treats P problems at once: images, labels, cost and derivatives have P in front.
    How it computes is the observation's `execution`. precision: bf16 is for the forward pass only; `dtype` is that of
    the derivatives. Of model updates the local steps are gone through if `simulated` (`local_steps.py`, which has
    `assumed_rate`); else an update counts as its mean gradient.
    """

    def __init__(
        self,
        seen: Observed | Sequence[Observed],
        cost: Cost,
        precision: Precision = "float32",
        simulated: bool = True,
        assumed_rate: float = 1.0,
    ) -> None:
        self.alone = not isinstance(seen, Sequence)
        problems = list(seen) if isinstance(seen, Sequence) else [seen]
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        self.passes = 1
        halved = precision == "bf16"
        updates = [one for one in problems if isinstance(one, ModelUpdate)]
        self._problems = problems
        self._evaluate: Loop | Stack | LocalSteps
        if simulated and updates:
            self._evaluate = LocalSteps(updates, cost, self.dtype, halved, assumed_rate)
            self.passes = self._evaluate.passes
        elif problems[0].execution == "loop":
            self._evaluate = Loop(problems, cost, self.dtype, halved)
        else:
            self._evaluate = Stack(problems, cost, self.dtype, halved)

    @property
    def square(self) -> Tensor:
        """|g*|^2 (P,), what a squared distance is to be measured in: nothing that is too small to divide by."""
        squares = [torch.stack([g.double().square().sum() for g in one.gradient]).sum() for one in self._problems]
        return torch.stack(squares).clamp_min(1e-30).to(self.dtype)

    def __call__(
        self, images: Tensor, labels: Tensor, inputs: Sequence[Tensor], which: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """(cost, its derivative with respect to each of `inputs`, from which images and labels were computed).

        which (Q,): the problems whose images and labels these are; None: all of them.
        """
        soft = labels.requires_grad
        given = images.detach().to(self.dtype), labels.detach().to(self.dtype) if soft else labels
        if self.alone:
            given = given[0][None], given[1][None]
        value = self._evaluate(*given, soft, which)
        cost, *derivatives = (part if part is None or not self.alone else part[0] for part in value)
        assert cost is not None
        moved = [(images, derivatives[0]), (labels, derivatives[1])]
        ends = [(tensor, g.to(tensor.dtype)) for tensor, g in moved if g is not None and tensor.requires_grad]
        return cost, list(torch.autograd.grad([t for t, _ in ends], inputs, grad_outputs=[g for _, g in ends]))


class Loop:
    """The plain execution: problem after problem, through the observation's own model, which counts the passes."""

    def __init__(self, problems: Sequence[Observed], cost: Cost, dtype: torch.dtype, halved: bool) -> None:
        self.problems, self.cost, self.halved = problems, cost, halved
        same = all(parameter.dtype == dtype for parameter in problems[0].model.parameters())
        self.models = [one.model if same else copy.deepcopy(one.model).to(dtype) for one in problems]
        self.observed = [[g.to(dtype) for g in one.gradient] for one in problems]
        for model in self.models:
            model.requires_grad_()
        self.factors = [Factors(model, problems[0].shape, cost) for model in self.models]

    def __call__(self, images: Tensor, labels: Tensor, soft: bool, which: Tensor | None) -> Value:
        return one_after_another(self._one, images, labels, soft, which)

    def _one(self, index: int, images: Tensor, labels: Tensor, soft: bool) -> Value:
        model, factors, loss = self.models[index], self.factors[index], self.problems[index].loss

        def forward(parameters, buffers, probes, images, labels):
            with factors.recording(probes) as inputs, bfloat16(images, self.halved):
                return loss(model(images), labels), inputs

        given = Given(list(model.parameters()), [], self.observed[index])
        return Step(forward, factors, self.cost).evaluate(given, images, labels, soft)
