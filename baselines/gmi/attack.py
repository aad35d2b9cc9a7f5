"""GMI (Zhang et al., CVPR 2020): the noise of a generator of public images is searched by a released model."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakboard import config
from leakboard.config.recipes import Generator
from leakboard.threat import Reconstruction, ReleasedModel


@dataclass(frozen=True)
class GMI:
    """Equation 4: realism + `identity` x cross-entropy of the target, over noise clipped to [-clip, clip], with
    Nesterov's momentum; each image is the best of `restarts` by the target's own logit.

    search: `noise` of a generator; `pixels`, the model inversion before it (EMI), with no prior; `nothing` hands in the
    auxiliary image as it is. realism: `critic`, -D(G(z)), or `log`, -log of its sigmoid. clip: 0 leaves the noise free.
    released: false searches with a network of the same form and no training, so that the prior alone speaks.
    auxiliary: whether the prior completes what is known of each image, where anything is.
    layers, form, noise, width, epochs, images_a_step, critic_steps: of the prior (`config/recipes.py`), of which each
    trial has one of its own. differs: an image's step does not depend on how many are searched at once.
    """

    search: Literal["noise", "pixels", "nothing"] = "noise"
    steps: int = 1500
    restarts: int = 5
    optimiser: Literal["nesterov", "adam"] = "nesterov"
    rate: float = 0.01
    momentum: float = 0.9
    clip: float = 1.0
    identity: float = 100.0
    realism: Literal["critic", "log"] = "critic"
    weight: float = 1.0
    released: bool = True
    auxiliary: bool = True
    layers: Literal["convolutional", "linear"] = "convolutional"
    form: Literal["wgan_gp", "dcgan"] = "wgan_gp"
    noise: int = 100
    width: int = 16
    epochs: int = 25
    images_a_step: int = 32
    critic_steps: int = 3

    def skips(self, benchmark: config.Benchmark) -> str | None:
        if benchmark.threat.access == "black":
            return "needs the weights of the released model"
        if self.search == "nothing" and benchmark.auxiliary is None:
            return "hands in the auxiliary image, and there is none"
        return None

    def prior(self, benchmark: config.Benchmark, trial: int) -> Generator | None:
        if self.search != "noise" or benchmark.public_images is None:
            return None
        return Generator(
            images=benchmark.public_images,
            layers=self.layers,
            form=self.form,
            noise=self.noise,
            width=self.width,
            epochs=self.epochs,
            batch=self.images_a_step,
            critic_steps=self.critic_steps,
            completes=benchmark.auxiliary if self.auxiliary else None,
            seed=trial,
        )

    def reconstruct(self, seen: ReleasedModel, rng: torch.Generator) -> Reconstruction:
        if self.search == "nothing":
            assert seen.auxiliary is not None
            return Reconstruction(seen.auxiliary)
        batch, restarts, steps = seen.shape[0], *self._affordable(seen.budget)
        model = seen.model if self.released else untrained(seen.model, rng)
        labels = torch.full((restarts * batch,), seen.target, device=seen.device)
        x = self._start(seen, restarts * batch, rng).to(seen.device).requires_grad_()
        mover = self._mover(x)
        for step in range(1, steps + 1):
            images = self._drawn(seen, x)
            loss = self._objective(seen, model, images, labels)
            (x.grad,) = torch.autograd.grad(loss, [x])
            mover.step()
            self._project(x)
            seen.snapshot(step, images[:batch].detach(), loss.detach() / len(labels))
        with torch.no_grad():
            images = self._drawn(seen, x)
            scores = model(images)[:, seen.target].view(restarts, batch)
        info = {"restarts": float(restarts), "loss": float(loss.detach() / len(labels))}
        return Reconstruction(best(images.view(restarts, *seen.shape), scores), None, info)

    def _affordable(self, budget: int | None) -> tuple[int, int]:
        """(restarts, steps), of which all but the last are followed by a gradient: what the budget allows."""
        if budget is None:
            return self.restarts, self.steps
        restarts = max(1, min(self.restarts, budget // 2))
        return restarts, max(1, min(self.steps, budget // restarts - 1))

    def _start(self, seen: ReleasedModel, count: int, rng: torch.Generator) -> Tensor:
        if self.search == "pixels":
            return torch.rand(count, *seen.shape[1:], generator=rng)
        return torch.randn(count, self.noise, generator=rng)

    def _mover(self, x: Tensor) -> torch.optim.Optimizer:
        if self.optimiser == "adam":
            return torch.optim.Adam([x], self.rate)
        return torch.optim.SGD([x], self.rate, momentum=self.momentum, nesterov=True)

    def _drawn(self, seen: ReleasedModel, x: Tensor) -> Tensor:
        if self.search == "pixels":
            return x
        assert seen.prior is not None
        if seen.auxiliary is None or not self.auxiliary:
            return seen.prior(x)
        return seen.prior(x, seen.auxiliary.repeat(len(x) // len(seen.auxiliary), 1, 1, 1))

    def _objective(self, seen: ReleasedModel, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Equation 4, the sum over the images."""
        return self.identity * len(labels) * seen.loss(model(images), labels) + self._unreal(seen, images)

    def _unreal(self, seen: ReleasedModel, images: Tensor) -> Tensor:
        """How unlike the public images these are, in sum: what the critic of the prior says."""
        if self.search == "pixels" or seen.prior is None:
            return images.new_zeros(())
        verdict = seen.prior.critic(images)  # type: ignore[operator]
        return self.weight * (-verdict if self.realism == "critic" else F.softplus(-verdict)).sum()

    @torch.no_grad()
    def _project(self, x: Tensor) -> None:
        if self.search == "pixels":
            x.clamp_(0, 1)
        elif self.clip:
            x.clamp_(-self.clip, self.clip)


def best(images: Tensor, scores: Tensor) -> Tensor:
    """Of restarts (R, B, C, H, W) those of the highest scores (R, B), whatever their sign: (B, C, H, W)."""
    return images[scores.argmax(0), torch.arange(images.shape[1], device=images.device)]


def untrained(model: nn.Module, rng: torch.Generator) -> nn.Module:
    """A network of this form as PyTorch initialises it, drawn by `rng`; passes through it count as the model's."""
    drawn = copy.deepcopy(model)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(int(torch.randint(2**62, (1,), generator=rng)))
        for module in drawn.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    return drawn
