"""One gradient evaluation: forward, backward, and the backward of that backward. What every execution computes.

The cotangent of the cost is known in closed form (`costs`), so no graph runs through the cost; derivatives are taken
with respect to images and labels only, so no weight gradient is accumulated that nobody reads; and the weight gradient
of a large linear layer stays a pair of factors where the cost can use it so.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as trees

from leakboard.attack.costs import LARGE, Cost, Outer

# (parameters, buffers, probes, images, labels) -> (loss, what goes into each factored layer)
Forward = Callable[[list[Tensor], list[Tensor], list[Tensor], Tensor, Tensor], tuple[Tensor, list[Tensor]]]
Value = tuple[Tensor, Tensor, Tensor | None]  # cost and its derivatives with respect to images and soft labels


def bare(model: nn.Module) -> nn.Module:
    """A copy without hooks: passes through it are not counted, whoever uses it counts them itself."""
    model = copy.deepcopy(model)
    for module in model.modules():
        module._forward_hooks.clear()
    return model


def bfloat16(images: Tensor, halved: bool) -> torch.autocast:
    """What a forward pass runs in: bfloat16 where it may, if `halved`."""
    return torch.autocast(images.device.type, torch.bfloat16, enabled=halved)


@contextlib.contextmanager
def twice_differentiable() -> Iterator[None]:
    """Around a forward pass: attention in its mathematical form; of its fused kernels there is no second derivative.

    Nor is there one of the transformer layers' own fast path, which stacked weights would take: to it, they look as if
    nothing was to be differentiated. Networks without attention compute what they always do.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class Factors:
    """The large linear layers of a model that one pass calls once, on a matrix: their weight gradients stay factored.

    A probe is a tensor of zeros added to what such a layer puts out: the gradient with respect to it is delta.
    """

    def __init__(self, model: nn.Module, shape: Sequence[int], cost: Cost) -> None:
        layers = [m for m in model.modules() if type(m) is nn.Linear and m.weight.numel() >= LARGE]
        if not getattr(cost, "takes_factors", False):
            layers = []
        used = _uses(model, layers, shape) if layers else []
        self.layers = [layer for layer, sizes in zip(layers, used, strict=True) if sizes == [2]]
        places = [id(parameter) for parameter in model.parameters()]
        self.places = [places.index(id(layer.weight)) for layer in self.layers]

    def probes(self, images: Tensor) -> list[Tensor]:
        """Zeros (..., B, out) for images (..., B, C, H, W)."""
        return [images.new_zeros(*images.shape[:-3], layer.out_features) for layer in self.layers]

    @contextlib.contextmanager
    def recording(self, probes: list[Tensor]) -> Iterator[list[Tensor]]:
        """While it lasts, the inputs of the layers are recorded and the probes added to their outputs."""
        inputs = [torch.empty(0)] * len(self.layers)

        def hook_of(index: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
            def hook(_: nn.Module, given: Any, output: Tensor) -> Tensor:
                inputs[index] = given[0]
                return output + probes[index]

            return hook

        handles = [layer.register_forward_hook(hook_of(index)) for index, layer in enumerate(self.layers)]
        try:
            yield inputs
        finally:
            for handle in handles:
                handle.remove()


def _uses(model: nn.Module, layers: list[nn.Linear], shape: Sequence[int]) -> list[list[int]]:
    """How often one pass calls each layer, and with how many dimensions."""
    copied = bare(model).eval()
    places = [id(module) for module in model.modules()]
    twins, found = list(copied.modules()), []
    for layer in layers:
        sizes: list[int] = []
        found.append(sizes)
        twins[places.index(id(layer))].register_forward_hook(lambda _, given, out, sizes=sizes: sizes.append(out.ndim))
    parameter = next(copied.parameters())
    with torch.no_grad():
        copied(torch.zeros(*shape, device=parameter.device, dtype=parameter.dtype))
    return found


class Given(NamedTuple):
    """What a step starts from: the victim's parameters and buffers, and the observed gradient, one tensor per layer."""

    parameters: list[Tensor]
    buffers: list[Tensor]
    observed: list[Tensor]


@dataclass(frozen=True)
class Step:
    """How a step is taken. many: `vmap`, where everything has a leading dimension of problems."""

    forward: Forward
    factors: Factors
    cost: Cost
    many: Callable[[Callable], Callable] = lambda function: function

    def evaluate(self, given: Given, images: Tensor, labels: Tensor, soft: bool) -> Value:
        """Cost and derivatives at images (B, C, H, W) and labels, classes (B,) or probabilities (B, classes).

        soft: whether labels are moved too.
        """
        parameters, buffers, observed = given
        images = images.detach().requires_grad_()
        labels = labels.detach().requires_grad_() if soft else labels.detach()
        probes, places = [probe.requires_grad_() for probe in self.factors.probes(images)], self.factors.places
        with twice_differentiable():
            loss, inputs = self.many(self.forward)(parameters, buffers, probes, images, labels)
        formed = [parameter for place, parameter in enumerate(parameters) if place not in places]
        gradients = iter(torch.autograd.grad(loss.sum(), [*formed, *probes], create_graph=True))
        got: list[Any] = [None if place in places else next(gradients) for place in range(len(parameters))]
        for place, x in zip(places, inputs, strict=True):
            got[place] = Outer(next(gradients), x)
        value, cotangent = self.many(self.cost)(trees.tree_map(torch.detach, got), observed)
        derivatives = torch.autograd.grad(
            trees.tree_leaves(got), [images, labels] if soft else [images], grad_outputs=trees.tree_leaves(cotangent)
        )
        return value, derivatives[0], derivatives[1] if soft else None


def one_after_another(
    one: Callable[[int, Tensor, Tensor, bool], Value], images: Tensor, labels: Tensor, soft: bool, which: Tensor | None
) -> Value:
    """`one(problem, images, labels, soft)` for each row; which (Q,): the rows' problems, None: in their order."""
    active = range(len(images)) if which is None else which.tolist()
    values = [one(problem, x, y, soft) for problem, x, y in zip(active, images, labels, strict=True)]
    costs, moves, turns = zip(*values, strict=True)
    return torch.stack(costs), torch.stack(moves), torch.stack(turns) if soft else None
