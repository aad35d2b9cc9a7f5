"""GRNN (Ren, Deng and Xie, TIST 2022): a generator draws image and label at once, and is trained on the gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from leakboard.attack.matching import Matching, Observed, squared_distance
from leakboard.models.generator import images_and_labels
from leakboard.threat import Reconstruction


@dataclass(frozen=True)
class GRNN:
    """Section 3.2: fixed noise per image, RMSprop on the generator; |g - g*|^2, its root (what the paper's Wasserstein
    term comes to), and `tv` times the squared total variation. steps 0: what the generator draws untrained, a control.

    differs: the sigmoid's range is the pixels', as the victim's network takes [0, 1].
    """

    steps: int = 1000
    rate: float = 1.0e-4
    momentum: float = 0.99
    tv: float = 1.0e-3
    noise: int = 128

    def reconstruct(self, seen: Observed, rng: torch.Generator) -> Reconstruction:
        generator = images_and_labels(tuple(seen.shape[1:]), seen.classes, self.noise, rng).to(seen.device)
        noise = torch.randn(seen.shape[0], self.noise, generator=rng).to(seen.device)
        parameters = list(generator.parameters())
        rmsprop = torch.optim.RMSprop(parameters, self.rate, momentum=self.momentum)
        matching = Matching(seen, distance)
        steps = self.steps if seen.budget is None else min(self.steps, seen.budget // matching.passes)
        for step in range(1, steps + 1):
            images, shares = generator(noise)
            x, labels = images.detach().requires_grad_(), shares.detach().requires_grad_()
            loss, (slope, turn) = matching(x, labels, [x, labels])
            (smooth,) = torch.autograd.grad(self.tv * squared_variation(x), [x])
            gradients = torch.autograd.grad([images, shares], parameters, [slope + smooth, turn])
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            rmsprop.step()
            seen.snapshot(step, images.detach(), loss)
        images, shares = generator(noise)
        info = {"loss": float(loss)} if steps else {}
        return Reconstruction(images.detach(), shares.argmax(1), info)


def distance(got: list[Tensor], observed: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """|g - g*|^2 + |g - g*|, and its cotangent."""
    square, cotangent = squared_distance(got, observed)
    norm = square.sqrt().clamp_min(1e-30)
    return square + norm, [part * (1 + 0.5 / norm) for part in cotangent]


def squared_variation(images: Tensor) -> Tensor:
    """Twice the mean squared difference of neighbours, along and across (B, C, H, W) -> scalar."""
    across, down = images.diff(dim=-1).square().mean(), images.diff(dim=-2).square().mean()
    return 2 * (across + down)
