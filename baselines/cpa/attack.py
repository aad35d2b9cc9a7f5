"""The Cocktail Party Attack (Kariyappa et al. 2023): the gradient of a linear layer is a mixture of its inputs."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakboard.attack.imprint import gradient_of
from leakboard.attack.matching import Observed
from leakboard.attack.priors import total_variation
from leakboard.threat import Reconstruction, due


@dataclass(frozen=True)
class CocktailParty:
    """Independent component analysis of G = V X (section 4), X being the images or, behind convolutions, features.

    Minimised over the unmixing matrix: `negentropy` times minus the squared mean log cosh of every source, plus
    `decorrelation` times mean(exp(`sharpness` |cos|) - 1) of its rows, plus a prior: `tv` on images; on features, which
    are not negative and sparse, `sign` and `l1`. The paper's code sets its negentropy to 0.
    differs: order does not matter, and sign and scale come from the layer's bias gradient V 1, not from the truth.
    inversion_steps: of the search for images with these features (section 5.2), for which half of a budget is kept.
    """

    steps: int = 25_000
    rate: float = 1.0e-3
    negentropy: float = 1.0
    decorrelation: float = 1.47
    sharpness: float = 12.4
    tv: float = 3.1
    sign: float = 0.13
    l1: float = 5.0
    inversion_steps: int = 25_000
    inversion_rate: float = 0.1
    inversion_tv: float = 0.1

    def reconstruct(self, seen: Observed, rng: torch.Generator) -> Reconstruction:
        layer = next(module for module in seen.model.modules() if isinstance(module, nn.Linear))
        weight, bias = gradient_of(layer, seen.model, seen.gradient)
        on_images = layer.in_features == torch.Size(seen.shape[1:]).numel()
        shape = seen.shape if on_images else None
        steps, inversion_steps = self._shares(seen.budget, on_images)
        sources, scales = self._unmix(seen, weight, bias, shape, steps)
        found = sources / scales[:, None]
        if shape is not None:
            return Reconstruction(found.view(-1, *shape[1:]))
        return Reconstruction(self._invert(seen, layer, found, inversion_steps, rng))

    def _shares(self, budget: int | None, on_images: bool) -> tuple[int, int]:
        """Steps of the unmixing and of the inversion of features, which gets what the first half leaves of a budget."""
        if on_images:
            return self.steps if budget is None else min(self.steps, budget), 0
        if budget is None:
            return self.steps, self.inversion_steps
        steps = min(self.steps, budget // 2)
        return steps, min(self.inversion_steps, budget - steps)

    def _unmix(
        self, seen: Observed, mixed: Tensor, bias: Tensor, shape: tuple[int, ...] | None, steps: int
    ) -> tuple[Tensor, Tensor]:
        """Sources (N, D) with their means, and what they are to be divided by (N,); N <= B, one per component."""
        mean = mixed.mean(1, keepdim=True)
        whitening = _whitening(mixed - mean, seen.shape[0])  # (N, out)
        white, offset, ones = whitening @ (mixed - mean), whitening @ mean, whitening @ bias
        unmixing = torch.eye(len(white), device=white.device).requires_grad_()
        adam = torch.optim.Adam([unmixing], self.rate)
        for step in range(1, steps + 1):
            seen.spend()  # a step here counts as one of gradient matching
            rows = F.normalize(unmixing, dim=1)
            loss = self._loss(rows, rows @ white, rows @ offset, shape)
            adam.zero_grad()
            loss.backward()
            adam.step()
            if shape is not None and due(step):
                with torch.no_grad():
                    images = (rows @ (white + offset)) / (rows @ ones)[:, None]
                seen.snapshot(step, images.view(-1, *shape[1:]), loss.detach())
        rows = F.normalize(unmixing.detach(), dim=1)
        return rows @ (white + offset), rows @ ones

    def _loss(self, rows: Tensor, sources: Tensor, means: Tensor, shape: tuple[int, ...] | None) -> Tensor:
        log_cosh = sources.abs() + torch.log1p(torch.exp(-2 * sources.abs())) - math.log(2)
        alike = (rows @ rows.T - torch.eye(len(rows), device=rows.device)).abs()
        loss = -self.negentropy * log_cosh.mean(1).square().mean()
        loss = loss + self.decorrelation * (torch.exp(self.sharpness * alike) - 1).mean()
        whole = sources + means
        if shape is not None:
            return loss + self.tv * total_variation(whole.view(-1, *shape[1:]))
        wrong = torch.minimum(whole.clamp_min(0).norm(dim=1), whole.clamp_max(0).norm(dim=1))
        return loss + self.sign * wrong.mean() + self.l1 * whole.abs().mean()

    def _invert(self, seen: Observed, layer: nn.Linear, features: Tensor, steps: int, rng: torch.Generator) -> Tensor:
        """Images (N, C, H, W) whose features point where the (N, D) found ones do: 1 - cos + TV, Adam in the box."""
        images = torch.rand(len(features), *seen.shape[1:], generator=rng).to(seen.device).requires_grad_()
        adam = torch.optim.Adam([images], self.inversion_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(1, steps))
        inputs: list[Tensor] = []
        handle = layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        try:
            for step in range(1, steps + 1):
                inputs.clear()
                seen.model(images)
                distance = (1 - F.cosine_similarity(inputs[0], features)).mean()
                loss = distance + self.inversion_tv * total_variation(images)
                (images.grad,) = torch.autograd.grad(loss, [images])
                adam.step()
                schedule.step()
                with torch.no_grad():
                    images.clamp_(0, 1)
                seen.snapshot(step, images.detach(), loss.detach())
        finally:
            handle.remove()
        return images.detach()


def _whitening(centred: Tensor, count: int) -> Tensor:
    """(N, out) of rows (out, D): the `count` largest principal components, or all there are, to unit variance."""
    covariance = centred.double() @ centred.double().T / (centred.shape[1] - 1)
    values, vectors = torch.linalg.eigh(covariance)
    kept = values.argsort(descending=True)[:count]
    kept = kept[values[kept] > 1e-12 * values.max()]
    return (vectors[:, kept] / values[kept].sqrt()).T.to(centred.dtype)
