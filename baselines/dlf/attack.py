"""Data Leakage in Federated Averaging (Dimitrov, Balunovic, Konstantinov and Vechev, TMLR 2022)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from leakboard.attack.costs import cosine_distance
from leakboard.attack.descent import signed_adam
from leakboard.attack.labels import row_sum_labels
from leakboard.attack.local_steps import mean_gradient
from leakboard.attack.priors import total_variation
from leakboard.threat import LocalTraining, ModelUpdate, Reconstruction


@dataclass(frozen=True)
class DataLeakage:
    """Section 5: every epoch of the client has its own copies of its images, gone through in mini-batches; what does
    not depend on their order must agree between epochs (`order`). In the end copies are matched and averaged.

    Cosine distance + `tv` + `order`, signed Adam in the box. Labels that are not given are counted along the local
    steps (section 4). order 0 with copies False: the baseline, one set of images and no prior.
    differs: the squared distance with weights exp(-l) over the layers, plain Adam and a penalty for pixels outside of
    the box, which the paper takes, end 3 dB lower on images that no board reports.
    """

    steps: int = 400
    rate: float = 0.025
    tv: float = 1.0e-4
    order: float = 0.01
    copies: bool = True
    channels: int = 96
    dummies: int = 64

    def reconstruct(self, seen: ModelUpdate, rng: torch.Generator) -> Reconstruction:
        local = seen.local
        if local is None:
            raise ValueError("the benchmark does not tell the local training, which cannot be gone through")
        labels = seen.labels if seen.labels is not None else self._labels(seen, rng)
        count = local.epochs if self.copies else 1
        kernel = torch.randn(self.channels, seen.shape[1], 3, 3, generator=rng).to(seen.device)

        def objective(images: Tensor) -> tuple[Tensor, Tensor]:
            copies = images.detach().view(count, *seen.shape).requires_grad_()
            got = mean_gradient(seen.model, seen.loss, _batches(copies, labels, local), local)
            distance, cotangent = cosine_distance([g.detach() for g in got], seen.gradient)
            prior = self._priors(copies, kernel)
            (slope,) = torch.autograd.grad([*got, prior], [copies], [*cotangent, torch.ones_like(prior)])
            return (distance + prior.detach()).view(1), slope.view_as(images)

        def observe(step: int, images: Tensor, values: Tensor) -> None:
            seen.snapshot(step, images[0, : seen.shape[0]], values[0])

        start = torch.rand(1, count * seen.shape[0], *seen.shape[1:], generator=rng).to(seen.device)
        passes = 0 if seen.labels is not None else 2  # of the label counts
        steps = self.steps if seen.budget is None else min(self.steps, (seen.budget - passes) // local.steps)
        images, losses = signed_adam(objective, start, steps, self.rate, observe=observe)
        return Reconstruction(together(images.view(count, *seen.shape), labels), labels, {"loss": float(losses)})

    def _labels(self, seen: ModelUpdate, rng: torch.Generator) -> Tensor:
        dummies = torch.rand(self.dummies, *seen.shape[1:], generator=rng).to(seen.device)
        return row_sum_labels(seen, dummies, ("before", "after"))

    def _priors(self, images: Tensor, kernel: Tensor) -> Tensor:
        """images (E, K, C, H, W) -> scalar: total variation, and how far the order-invariant features differ."""
        value = self.tv * total_variation(images.flatten(0, 1))
        if len(images) == 1 or self.order == 0:
            return value
        features = F.conv2d(images.flatten(0, 1), kernel, padding=1)
        invariant = features.view(*images.shape[:2], *features.shape[1:]).amax(1).flatten(1)  # (E, ...)
        first, second = torch.combinations(torch.arange(len(images), device=images.device)).T
        return value + self.order * (invariant[first] - invariant[second]).square().mean()


def _batches(images: Tensor, labels: Tensor, local: LocalTraining) -> list[tuple[Tensor, Tensor]]:
    """(images, labels) of every local step: each epoch from its own copies, or all from the only ones."""
    size = local.batch or images.shape[1]
    passes = local.steps // -(-images.shape[1] // size)
    each = passes // local.epochs
    epochs = [images[number // each % len(images)] for number in range(passes)]
    return [part for copies in epochs for part in zip(copies.split(size), labels.split(size), strict=True)]


def together(images: Tensor, labels: Tensor) -> Tensor:
    """(E, K, C, H, W) -> (K, C, H, W): every epoch's copies, matched to the first's of the same label (Hungarian on
    MSE), averaged.
    """
    apart = 1e6 * (labels[:, None] != labels)
    first, *others = images.flatten(2)
    total = first.clone()
    for copies in others:
        cost = torch.cdist(first, copies).square() + apart
        total += copies[torch.as_tensor(linear_sum_assignment(cost.cpu().numpy())[1], device=images.device)]
    return (total / len(images)).view(images.shape[1:])
