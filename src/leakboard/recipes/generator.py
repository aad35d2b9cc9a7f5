"""Training a generator against its critic: Wasserstein distance with a gradient penalty, or DCGAN's log loss.

WGAN-GP is algorithm 1 of Gulrajani et al. 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakboard.config.recipes import Generator
from leakboard.data.loading import dataset_of
from leakboard.models.completing import completing
from leakboard.models.dcgan import Prior, critic, drawing
from leakboard.models.linear_gan import linear_critic, linear_drawing
from leakboard.recipes.restorer import degraded
from leakboard.recipes.store import RecipeError
from leakboard.rng import generator, seeded


@dataclass(frozen=True)
class Objective:
    """critic: (critic, real, drawn, shares, penalty) -> its loss; drawing: the critic's verdict (B,) -> its loss."""

    critic: Callable[[nn.Module, Tensor, Tensor, Tensor, float], Tensor]
    drawing: Callable[[Tensor], Tensor]
    critic_steps: int


def untrained(recipe: Generator) -> Prior:
    rng, shape = generator("generator", recipe.seed), dataset_of(recipe.images).shape
    if recipe.layers == "linear":
        return Prior(linear_drawing(shape, recipe.noise, rng), linear_critic(shape, rng))
    draws = drawing if recipe.completes is None else completing
    return Prior(draws(shape, recipe.noise, recipe.width, rng), critic(shape, recipe.width, rng))


def train(prior: Prior, recipe: Generator, images: Tensor, labels: Tensor, device: torch.device | str = "cpu") -> None:
    """Critic and generator in turn on images (N, C, S, S), in place; ends in eval mode. Labels play no part.

    RecipeError as soon as a loss is not finite.
    """
    prior.to(device).train()
    with seeded("dropout", recipe.seed):
        _train(prior, recipe, images, device)
    prior.eval()


def _train(prior: Prior, recipe: Generator, images: Tensor, device: torch.device | str) -> None:
    objective, rng = OBJECTIVES[recipe.form], generator("training", recipe.seed)
    steps = recipe.critic_steps or objective.critic_steps
    critic_adam = torch.optim.Adam(prior.critic.parameters(), recipe.rate, recipe.betas)
    drawing_adam = torch.optim.Adam(prior.drawing.parameters(), recipe.rate, recipe.betas)
    taken = 0
    for epoch in range(1, recipe.epochs + 1):
        losses = torch.zeros((), device=device)
        for chosen in torch.randperm(len(images), generator=rng).split(recipe.batch):
            real = images[chosen].to(device)
            losses += _critic_step(prior, critic_adam, real, recipe, rng)
            taken += 1
            if taken % steps == 0:
                losses += _drawing_step(prior, drawing_adam, real, recipe, rng)
        if not torch.isfinite(losses):
            raise RecipeError(
                f"generator {recipe.hash} of {recipe.images}: the {recipe.form} training diverged in epoch {epoch} of "
                f"{recipe.epochs}, its loss is {losses.item()}; try a `rate` below {recipe.rate:g}"
            )
    if taken < steps:
        raise RecipeError(
            f"generator {recipe.hash} of {recipe.images}: {taken} steps of the critic in all, and the generator takes "
            f"one in {steps}; give it more `epochs`"
        )


def _critic_step(prior: Prior, adam: torch.optim.Adam, real: Tensor, recipe: Generator, rng: torch.Generator) -> Tensor:
    with torch.no_grad():
        drawn = prior(_noise(prior, len(real), rng).to(real.device), *_given(recipe, real, rng))
    shares = torch.rand(len(real), 1, 1, 1, generator=rng).to(real.device)
    return _stepped(adam, OBJECTIVES[recipe.form].critic(prior.critic, real, drawn, shares, recipe.penalty))


def _drawing_step(
    prior: Prior, adam: torch.optim.Adam, real: Tensor, recipe: Generator, rng: torch.Generator
) -> Tensor:
    objective = OBJECTIVES[recipe.form].drawing
    if recipe.completes is None:
        return _stepped(adam, objective(prior.critic(prior(_noise(prior, recipe.batch, rng).to(real.device)))))
    given = _given(recipe, real, rng)
    one, other = (_noise(prior, len(real), rng).to(real.device) for _ in range(2))
    drawn, again = prior(one, *given), prior(other, *given)
    misfit = (degraded(drawn, recipe.completes, rng) - given[0]).square().mean()
    apart = unlike(prior.critic.features, drawn, again, one, other)  # type: ignore[arg-type]
    return _stepped(adam, objective(prior.critic(drawn)) + recipe.fidelity * misfit - recipe.diversity * apart)


def _noise(prior: Prior, count: int, rng: torch.Generator) -> Tensor:
    return torch.randn(count, prior.noise, generator=rng)


def _given(recipe: Generator, real: Tensor, rng: torch.Generator) -> tuple[Tensor, ...]:
    """What a generator that completes is given of these images, beside the noise."""
    return () if recipe.completes is None else (degraded(real, recipe.completes, rng),)


def unlike(features: Callable[[Tensor], Tensor], drawn: Tensor, again: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """How far apart, in `features`, images are that were drawn from noise `one` and `other`, over how far these are.

    Zhang et al. 2020, the diversity term of section 3.1, mean over the batch. differs: the features are the critic's,
    which has seen public images alone; in the paper they are the target's.
    """
    between = (features(drawn) - features(again)).flatten(1).norm(dim=1)
    return (between / (one - other).norm(dim=1)).mean()


def _stepped(adam: torch.optim.Adam, loss: Tensor) -> Tensor:
    """One step of these parameters alone; the loss before it."""
    parameters = adam.param_groups[0]["params"]
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    adam.step()
    return loss.detach()


def wasserstein(critic: nn.Module, real: Tensor, drawn: Tensor, shares: Tensor, penalty: float) -> Tensor:
    """mean D(drawn) - mean D(real) + penalty x the gradient penalty between them; shares (B, 1, 1, 1) in [0, 1]."""
    between = shares * real + (1 - shares) * drawn
    return critic(drawn).mean() - critic(real).mean() + penalty * gradient_penalty(critic, between)


def gradient_penalty(critic: nn.Module, images: Tensor) -> Tensor:
    """Mean of (|slope of the critic at an image| - 1)^2 over images (B, C, H, W); differentiable in the critic."""
    images = images.detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def log_loss(critic: nn.Module, real: Tensor, drawn: Tensor, shares: Tensor, penalty: float) -> Tensor:
    """-log s(D(real)) - log(1 - s(D(drawn))) with s the sigmoid, means over the batch; no penalty."""
    return F.softplus(-critic(real)).mean() + F.softplus(critic(drawn)).mean()


OBJECTIVES = {
    "wgan_gp": Objective(wasserstein, lambda verdict: -verdict.mean(), critic_steps=5),
    "dcgan": Objective(log_loss, lambda verdict: F.softplus(-verdict).mean(), critic_steps=1),
}
