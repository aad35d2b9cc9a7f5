"""Defences in what a released model replies."""

from __future__ import annotations

import torch
from torch import Tensor

from leakboard.victim.defences.points import acts_on


@acts_on("answer")
def rounding(confidences: Tensor, rng: torch.Generator, *, step: float) -> Tensor:
    """Confidences (N, classes) rounded to multiples of `step`; 0 leaves every bit as it is."""
    return (confidences / step).round() * step if step else confidences
