"""Gradient matching: how far the gradient of dummy images lies from the observed one, and which way to move them.

The cost C(g) of a dummy gradient g has a closed-form cotangent dC/dg, so no graph runs through the cost: the derivative
of C with respect to the images is the vector-Jacobian product of g with that cotangent (double backward), and no weight
gradient is accumulated that nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from leakboard.threat import Gradient

# (dummy gradient, observed gradient), one tensor per parameter -> (cost, its cotangent: dC/dg per parameter)
Cost = Callable[[Sequence[Tensor], Sequence[Tensor]], tuple[Tensor, list[Tensor]]]


def squared_distance(got: Sequence[Tensor], observed: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """sum_l |g_l - g*_l|^2 (Zhu et al. 2019, equation 3)."""
    difference = [g - seen for g, seen in zip(got, observed, strict=True)]
    return _product(difference, difference), [2 * d for d in difference]


def cosine_distance(got: Sequence[Tensor], observed: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """1 - <g, g*> / (|g| |g*|), all parameters as one vector (Geiping et al. 2020, equation 4)."""
    norm = _product(got, got).sqrt().clamp_min(1e-30)
    scale = 1 / (norm * _product(observed, observed).sqrt().clamp_min(1e-30))
    cosine = _product(got, observed) * scale
    along = cosine / norm**2
    return 1 - cosine, [along * g - scale * seen for g, seen in zip(got, observed, strict=True)]


def _product(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    return torch.stack([torch.dot(a.flatten(), b.flatten()) for a, b in zip(left, right, strict=True)]).sum()


class Matching:
    """Callable: images (B, C, H, W) and labels -> (cost, derivatives). One call is one gradient evaluation.

    labels are classes (B,) int64 or probabilities (B, classes); what carries a graph may be differentiated.
    """

    def __init__(self, seen: Gradient, cost: Cost) -> None:
        self.seen, self.cost = seen, cost
        self.parameters = [p for p in seen.model.parameters()]
        for parameter in self.parameters:
            parameter.requires_grad_()

    def __call__(self, images: Tensor, labels: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """(cost, its derivative with respect to each of `inputs`, from which images and labels were computed)."""
        loss = self.seen.loss(self.seen.model(images), labels)
        got = torch.autograd.grad(loss, self.parameters, create_graph=True)
        cost, cotangent = self.cost([g.detach() for g in got], self.seen.gradient)
        return cost, list(torch.autograd.grad(got, inputs, grad_outputs=cotangent))
