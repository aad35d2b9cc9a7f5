"""Signed Adam in a box: the search of Inverting Gradients (Geiping et al. 2020, section 4)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# images (P, ...) -> (values (P,), gradient of the images' shape)
Objective = Callable[[Tensor], tuple[Tensor, Tensor]]


def signed_adam(
    objective: Objective,
    start: Tensor,
    steps: int,
    rate: float,
    observe: Callable[[int, Tensor, Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """`steps` steps of Adam on the sign of the gradient, projected into [0, 1] after each; returns the last points.

    The step size falls to a tenth at 3/8, 5/8 and 7/8 of the steps. The values returned are those of the last
    evaluation. Adam and the sign work pixel by pixel, so any number of problems may share a search.
    """
    point = start.clone().clamp_(0, 1).requires_grad_()
    adam = torch.optim.Adam([point], lr=rate)
    milestones = [steps * k // 8 for k in (3, 5, 7)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(adam, milestones, gamma=0.1)
    values = point.new_full(point.shape[:1], float("inf"))
    for step in range(1, steps + 1):
        values, gradient = objective(point)
        point.grad = gradient.sign()
        adam.step()
        schedule.step()
        with torch.no_grad():
            point.clamp_(0, 1)
        if observe is not None:
            observe(step, point.detach(), values)
    return point.detach(), values.detach()
