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
from leakboard.models.dcgan import Prior, critic, drawing
from leakboard.recipes.store import RecipeError
from leakboard.rng import generator


@dataclass(frozen=True)
class Objective:
    """critic: (critic, real, drawn, shares, penalty) -> its loss; drawing: the critic's verdict (B,) -> its loss."""

    critic: Callable[[nn.Module, Tensor, Tensor, Tensor, float], Tensor]
    drawing: Callable[[Tensor], Tensor]
    critic_steps: int


def untrained(recipe: Generator) -> Prior:
    rng, shape = generator("generator", recipe.seed), dataset_of(recipe.images).shape
    return Prior(drawing(shape, recipe.noise, recipe.width, rng), critic(shape, recipe.width, rng))


def train(prior: Prior, recipe: Generator, images: Tensor, labels: Tensor, device: torch.device | str = "cpu") -> None:
    """Critic and generator in turn on images (N, C, S, S), in place; ends in eval mode. Labels play no part.

    RecipeError as soon as a loss is not finite.
    """
    prior.to(device).train()
    objective, rng = OBJECTIVES[recipe.form], generator("training", recipe.seed)
    steps = recipe.critic_steps or objective.critic_steps
    critic_adam = torch.optim.Adam(prior.critic.parameters(), recipe.rate, recipe.betas)
    drawing_adam = torch.optim.Adam(prior.drawing.parameters(), recipe.rate, recipe.betas)
    taken = 0
    for epoch in range(1, recipe.epochs + 1):
        losses = torch.zeros((), device=device)
        for chosen in torch.randperm(len(images), generator=rng).split(recipe.batch):
            losses += _critic_step(prior, critic_adam, images[chosen].to(device), objective, recipe.penalty, rng)
            taken += 1
            if taken % steps == 0:
                losses += _drawing_step(prior, drawing_adam, recipe.batch, objective, rng)
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
    prior.eval()


def _critic_step(
    prior: Prior, adam: torch.optim.Adam, real: Tensor, objective: Objective, penalty: float, rng: torch.Generator
) -> Tensor:
    with torch.no_grad():
        drawn = prior(torch.randn(len(real), prior.noise, generator=rng).to(real.device))
    shares = torch.rand(len(real), 1, 1, 1, generator=rng).to(real.device)
    return _stepped(adam, objective.critic(prior.critic, real, drawn, shares, penalty))


def _drawing_step(
    prior: Prior, adam: torch.optim.Adam, batch: int, objective: Objective, rng: torch.Generator
) -> Tensor:
    drawn = prior(torch.randn(batch, prior.noise, generator=rng).to(next(prior.parameters()).device))
    return _stepped(adam, objective.drawing(prior.critic(drawn)))


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
