"""Labels read off the gradient of the last linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from leakboard.threat import Gradient, ModelUpdate


def last_linear_gradient(seen: Gradient | ModelUpdate) -> Tensor:
    """The gradient (classes, features) of the weight of the last linear layer; ValueError if there is none."""
    linears = [module for module in seen.model.modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise ValueError("the model has no linear layer to read labels from")
    for parameter, gradient in zip(seen.model.parameters(), seen.gradient, strict=True):
        if parameter is linears[-1].weight:
            return gradient
    raise ValueError("the weight of the last linear layer is not among the observed gradients")


def idlg_label(seen: Gradient | ModelUpdate) -> Tensor:
    """The label (1,) of a single image: the row with the smallest sum (Zhao et al. 2020, equation 5).

    Exact for batch 1, cross-entropy with a hard label, and non-negative features before the last layer: the row of
    class c is (p_c - [c = y]) times the features.
    """
    return last_linear_gradient(seen).sum(1).argmin().view(1)
