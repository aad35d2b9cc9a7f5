"""The rows that every board needs to be read: what one gets without attacking."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from leakboard.attack.matching import cosine_distance
from leakboard.threat import Gradient, Reconstruction, Seen


@dataclass(frozen=True)
class Control:
    """chance: uniform labels, where labels alone are asked for. noise: uniform pixels. mean: the mean public image.
    nearest: the public images whose own gradients point closest to the observed one (a retrieval attack; the nearest
    in pixels would need the truth).
    """

    kind: Literal["chance", "noise", "mean", "nearest"] = "noise"

    def reconstruct(self, seen: Seen, rng: torch.Generator) -> Reconstruction:
        batch = seen.shape[0]
        if self.kind == "chance":
            labels = torch.randint(seen.classes, (batch,), generator=rng)
            return Reconstruction(torch.empty(0, *seen.shape[1:]), labels)
        if self.kind == "noise":
            return Reconstruction(torch.rand(seen.shape, generator=rng))
        if seen.public is None:
            raise ValueError(f"the control {self.kind!r} needs public images")
        if self.kind == "mean":
            return Reconstruction(seen.public.images.mean(0, keepdim=True).expand(batch, -1, -1, -1))
        if not isinstance(seen, Gradient):
            raise ValueError("the nearest public image is found by its gradient")
        count = min(len(seen.public.images), seen.budget or len(seen.public.images))
        distances = torch.stack([_distance(seen, index) for index in range(count)])
        chosen = distances.topk(batch, largest=False).indices
        return Reconstruction(seen.public.images[chosen], seen.public.labels[chosen])


def _distance(seen: Gradient, index: int) -> Tensor:
    """How far the gradient of one public image, with its own label, points away from the observed one."""
    images, labels = seen.public.images[index : index + 1], seen.public.labels[index : index + 1]
    parameters = [p.requires_grad_() for p in seen.model.parameters()]
    gradient = torch.autograd.grad(seen.loss(seen.model(images), labels), parameters)
    return cosine_distance(gradient, seen.gradient)[0]
