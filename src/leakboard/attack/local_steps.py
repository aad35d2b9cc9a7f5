"""A client's local training gone through with dummy images, differentiably: what the attacks on model updates match."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from leakboard.attack.costs import Cost
from leakboard.attack.step import Value, bfloat16, one_after_another, twice_differentiable
from leakboard.threat import LocalTraining, ModelUpdate

Batch = tuple[Tensor, Tensor]


def batches_of(images: Tensor, labels: Tensor, local: LocalTraining) -> list[Batch]:
    """The (images, labels) of every local step: the images in their order, in mini-batches, as often as it takes."""
    size = local.batch or len(images)
    epoch = list(zip(images.split(size), labels.split(size), strict=True))
    return [epoch[step % len(epoch)] for step in range(local.steps)]


def mean_gradient(model: nn.Module, loss: nn.Module, batches: Iterable[Batch], local: LocalTraining) -> list[Tensor]:
    """(theta_0 - theta_s) / (sum of the learning rates) of s steps of SGD, with a graph back to images and labels.

    Momentum and weight decay are PyTorch's. The model keeps its weights and its buffers.
    """
    names = [name for name, _ in model.named_parameters()]
    first = [parameter.detach().requires_grad_() for parameter in model.parameters()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    weights: list[Tensor] = first
    velocity: list[Tensor] | None = None
    for rate, (images, labels) in zip(local.rates, batches, strict=True):
        with twice_differentiable():
            logits = functional_call(model, {**dict(zip(names, weights, strict=True)), **buffers}, (images,))
        gradient = torch.autograd.grad(loss(logits, labels), weights, create_graph=True)
        slope = [g + local.weight_decay * w for g, w in zip(gradient, weights, strict=True)]
        velocity = slope if velocity is None else [local.momentum * v + g for v, g in zip(velocity, slope, strict=True)]
        weights = [w - rate * v for w, v in zip(weights, velocity, strict=True)]
    return [(before - after) / sum(local.rates) for before, after in zip(first, weights, strict=True)]


class LocalSteps:
    """The execution that goes through the local steps; it evaluates problem after problem, as `Loop` does.

    assumed_rate: the learning rate the attacker assumes over the client's.
    """

    def __init__(
        self, problems: Sequence[ModelUpdate], cost: Cost, dtype: torch.dtype, halved: bool, assumed_rate: float
    ) -> None:
        self.problems, self.cost, self.halved = problems, cost, halved
        known = [one.local for one in problems]
        if any(local is None for local in known):
            raise ValueError("the benchmark does not tell the local training, which cannot be gone through")
        if any(local is not None and local.optimiser != "sgd" for local in known):
            raise ValueError("the local training is not by SGD, and only its steps can be gone through")
        self.local = [replace(one, learning_rate=one.learning_rate * assumed_rate) for one in known if one is not None]
        same = all(parameter.dtype == dtype for parameter in problems[0].model.parameters())
        self.models = [one.model if same else copy.deepcopy(one.model).to(dtype) for one in problems]
        self.observed = [[g.to(dtype) / assumed_rate for g in one.gradient] for one in problems]

    @property
    def passes(self) -> int:
        """Gradient evaluations that one call takes per problem."""
        return self.local[0].steps

    def __call__(self, images: Tensor, labels: Tensor, soft: bool, which: Tensor | None) -> Value:
        return one_after_another(self._one, images, labels, soft, which)

    def _one(self, index: int, images: Tensor, labels: Tensor, soft: bool) -> Value:
        images = images.detach().requires_grad_()
        labels = labels.detach().requires_grad_() if soft else labels.detach()
        local = self.local[index]
        with bfloat16(images, self.halved):
            got = mean_gradient(self.models[index], self.problems[index].loss, batches_of(images, labels, local), local)
        value, cotangent = self.cost([g.detach() for g in got], self.observed[index])
        moved = torch.autograd.grad(got, [images, labels] if soft else [images], grad_outputs=cotangent)
        return value, moved[0], moved[1] if soft else None
