"""GGL (Li, Zhang, Liu and Liu, CVPR 2022): the noise of a generator is searched until its image has the gradient."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from leakboard import config
from leakboard.attack.labels import idlg_label
from leakboard.attack.matching import Matching
from leakboard.config.recipes import Generator
from leakboard.threat import Gradient, Reconstruction, due

Draw = Callable[[Tensor], Tensor]  # noise (N, K) -> images (N, C, H, W) in [0, 1]


@dataclass(frozen=True)
class GGL:
    """Equation 3: the mean squared distance of gradients, tensor by tensor, + `divergence` x KL(z); the label first.

    space: what makes an image of noise: a `generator` of public images, or their principal `components`.
    search: CMA-ES over `generations` of `population`, or Adam for `steps` from `restarts` draws; handed in is the image
    of the lowest objective. adaptive: the candidate's gradient goes through what the observed one shows to have gone
    through: zeros, where it has some, and its length.
    width, epochs, critic_steps: of the generator. Controls, which search with another gradient and the label alone:
    told: false, with one of noise; of_class, with that of a public image of the label.
    differs: KL is of the moments of the coordinates of z, as in the authors' code; element by element, one z has none.
    """

    space: Literal["generator", "components"] = "generator"
    search: Literal["cma", "adam"] = "cma"
    generations: int = 800
    population: int = 50
    spread: float = 1.0
    steps: int = 2500
    restarts: int = 4
    rate: float = 0.1
    divergence: float = 0.1
    adaptive: bool = True
    told: bool = True
    of_class: bool = False
    noise: int = 128
    width: int = 16
    epochs: int = 25
    critic_steps: int = 3

    def skips(self, benchmark: config.Benchmark) -> str | None:
        return "the rule reads one label from one image" if benchmark.batch > 1 else None

    def prior(self, benchmark: config.Benchmark, trial: int) -> Generator | None:
        if self.space != "generator" or benchmark.public_images is None:
            return None
        return Generator(
            images=benchmark.public_images,
            noise=self.noise,
            width=self.width,
            epochs=self.epochs,
            critic_steps=self.critic_steps,
        )

    def reconstruct(self, seen: Gradient, rng: torch.Generator) -> Reconstruction:
        label = idlg_label(seen)
        draw, size = self._space(seen)
        search = self._evolve if self.search == "cma" else self._descend
        z, loss = search(seen, draw, size, label, rng)
        with torch.no_grad():
            return Reconstruction(draw(z[None]), label, {"loss": loss})

    def _space(self, seen: Gradient) -> tuple[Draw, int]:
        if self.space == "components":
            if seen.public is None:
                raise ValueError("principal components need public images")
            return components(seen.public.images, self.noise)
        if seen.prior is None:
            raise ValueError("the generator needs public images to be trained on")
        return seen.prior, self.noise

    def _observed(self, seen: Gradient, label: Tensor, rng: torch.Generator) -> tuple[Tensor, ...]:
        """The observed gradient; or that of a public image of the label; or one that points anywhere, of the length
        and the zeros of the observed one.
        """
        if self.of_class:
            return tuple(g[0] for g in slopes_of(seen, _public_of(seen, label, rng), label))
        if self.told:
            return seen.gradient
        drawn = [torch.randn(g.shape, generator=rng).to(g) * (g != 0) for g in seen.gradient]
        scale = norm(seen.gradient) / norm(drawn).clamp_min(1e-30)
        return tuple(scale * part for part in drawn)

    def _evolve(
        self, seen: Gradient, draw: Draw, size: int, label: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, float]:
        """CMA-ES from 0 (`cma`, Hansen); a generation is one pass. The best candidate met and its objective."""
        import cma

        cost = Cost(self._observed(seen, label, rng), self.adaptive)
        seed = 1 + int(torch.randint(2**31 - 1, (1,), generator=rng))  # 0 would be the time of day
        generations, population = self._generations(seen.budget)
        settings = {"popsize": population, "seed": seed, "verbose": -9, "maxiter": generations}
        strategy = cma.CMAEvolutionStrategy(numpy.zeros(size), self.spread, settings)
        best, lowest = torch.zeros(size, device=seen.device), math.inf
        for step in range(1, generations + 1):
            asked = strategy.ask()
            z = torch.as_tensor(numpy.stack(asked), dtype=torch.float32, device=seen.device)
            with torch.no_grad():
                values = cost.values(slopes_of(seen, draw(z), label)) + self.divergence * divergence(z)
                strategy.tell(asked, values.double().cpu().numpy())
                if float(values.min()) < lowest:
                    best, lowest = z[values.argmin()].clone(), float(values.min())
                if due(step):
                    seen.snapshot(step, draw(best[None]), lowest)
        return best, lowest

    def _left(self, budget: int) -> int:
        """Of the budget, once a control has taken the gradient that it searches with."""
        return max(1, budget - self.of_class)

    def _generations(self, budget: int | None) -> tuple[int, int]:
        """(generations, their population), as far as the budget reaches."""
        if budget is None:
            return self.generations, self.population
        population = min(self.population, self._left(budget))
        return min(self.generations, self._left(budget) // population), population

    def _descents(self, budget: int | None) -> tuple[int, int]:
        """(restarts, steps of each), likewise."""
        if budget is None:
            return self.restarts, self.steps
        restarts = min(self.restarts, self._left(budget))
        return restarts, min(self.steps, self._left(budget) // restarts)

    def _descend(
        self, seen: Gradient, draw: Draw, size: int, label: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, float]:
        """Adam from `restarts` draws, one after the other; the best of their ends and its objective."""
        cost = Cost(self._observed(seen, label, rng), self.adaptive)
        matching = Matching(seen, cost)
        restarts, steps = self._descents(seen.budget)
        best, lowest = torch.zeros(size, device=seen.device), math.inf
        for _ in range(restarts):
            z = torch.randn(size, generator=rng).to(seen.device).requires_grad_()
            adam = torch.optim.Adam([z], self.rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
            for step in range(1, steps + 1):
                before = z.detach().clone()
                images = draw(z[None])
                x = images.detach().requires_grad_()
                distance, (slope,) = matching(x, label, [x])
                away = self.divergence * divergence(z[None])[0]
                (z.grad,) = torch.autograd.grad([images, away], [z], [slope, torch.ones_like(away)])
                value = float(distance + away.detach())
                if value < lowest:
                    best, lowest = before, value
                adam.step()
                schedule.step()
                seen.snapshot(step, x.detach(), value)
        return best, lowest


class Cost:
    """|T(g) - g*|^2 over the number of parameters; T leaves out what g* lacks and makes g no longer than g*.

    Callable as gradient matching wants it: (got, observed) -> (value, cotangent); the observed one is its own.
    """

    def __init__(self, observed: tuple[Tensor, ...], adaptive: bool) -> None:
        self.observed = observed
        self.kept = [(g != 0).to(g) if adaptive else torch.ones_like(g) for g in observed]
        self.longest = norm(observed) if adaptive else torch.tensor(math.inf)
        self.count = len(observed)

    def __call__(self, got: list[Tensor], observed: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        kept = [g * part for g, part in zip(got, self.kept, strict=True)]
        length = norm(kept).clamp_min(1e-30)
        share = (self.longest.to(length) / length).clamp_max(1.0)
        apart = [share * g - seen.to(g) for g, seen in zip(kept, self.observed, strict=True)]
        value = torch.stack([part.square().sum() for part in apart]).sum() / self.count
        # where it is shortened, the part of the difference along g is not g's doing
        along = torch.stack([(d * g).sum() for d, g in zip(apart, kept, strict=True)]).sum() / length.square()
        along = torch.where(share < 1, along, torch.zeros_like(along))
        pulled = zip(apart, kept, self.kept, strict=True)
        return value, [2 / self.count * share * (d - along * g) * part for d, g, part in pulled]

    def values(self, slopes: list[Tensor]) -> Tensor:
        """Of N gradients at once, one tensor (N, ...) per parameter: (N,)."""
        kept = [g * part for g, part in zip(slopes, self.kept, strict=True)]
        length = torch.stack([g.flatten(1).square().sum(1) for g in kept]).sum(0).sqrt().clamp_min(1e-30)
        share = (self.longest.to(length) / length).clamp_max(1.0)
        apart = [
            (g.flatten(1) * share[:, None] - seen.flatten()).square().sum(1)
            for g, seen in zip(kept, self.observed, strict=True)
        ]
        return torch.stack(apart).sum(0) / self.count


def _public_of(seen: Gradient, label: Tensor, rng: torch.Generator) -> Tensor:
    """One public image (1, C, H, W) of this label; ValueError where there is none."""
    found = [] if seen.public is None else (seen.public.labels == label).nonzero().flatten().tolist()
    if seen.public is None or not found:
        raise ValueError("no public image has the label")
    chosen = found[int(torch.randint(len(found), (1,), generator=rng))]
    return seen.public.images[chosen : chosen + 1]


def norm(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum().sqrt()


def slopes_of(seen: Gradient, images: Tensor, label: Tensor) -> list[Tensor]:
    """The gradient of each image (N, C, H, W) by itself, all of this label (1,): one tensor (N, ...) per parameter."""
    parameters = {name: parameter.detach() for name, parameter in seen.model.named_parameters()}
    buffers = dict(seen.model.named_buffers())

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return seen.loss(functional_call(seen.model, {**parameters, **buffers}, (image[None],)), label)

    slopes = vmap(grad(loss), in_dims=(None, 0), randomness="different")(parameters, images)
    return [slopes[name] for name in parameters]


def divergence(z: Tensor) -> Tensor:
    """KL of the moments of the coordinates of each z (N, K) from N(0, 1): (N,)."""
    mean, variance = z.mean(1), z.var(1, unbiased=False)
    return -0.5 * (1 + (variance + 1e-10).log() - mean.square() - variance)


def components(images: Tensor, count: int) -> tuple[Draw, int]:
    """Public images (N, C, H, W) as a Gaussian: noise (M, K) -> mean + sum of the K principal components, in [0, 1]."""
    flat = images.flatten(1)
    mean = flat.mean(0)
    count = min(count, len(images) - 1)
    _, scales, axes = torch.linalg.svd(flat - mean, full_matrices=False)
    spread = (scales / math.sqrt(len(images) - 1))[:count, None] * axes[:count]

    def draw(z: Tensor) -> Tensor:
        return (mean + z @ spread).clamp(0, 1).view(-1, *images.shape[1:])

    return draw, count
