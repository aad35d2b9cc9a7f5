"""Generators and restorers: shapes, the mathematics of their training, and what they are good for."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import observed, question

from leakboard.attack.matching import Matching, squared_distance
from leakboard.config import Images
from leakboard.config.recipes import Degradation, Generator, Restorer
from leakboard.data import select
from leakboard.models import dcgan
from leakboard.recipes import generator, restorer, store
from leakboard.recipes.classifier import state_sha
from leakboard.recipes.store import RecipeError
from leakboard.score import psnr

DIGITS, HELD_OUT = Images(name="digits"), Images(name="digits", split="test")
SMALL = {"images": DIGITS, "noise": 16, "width": 16, "epochs": 25, "critic_steps": 2, "rate": 2e-3}


@pytest.fixture(scope="module")
def prior():
    """A small generator of digits, trained in seconds."""
    recipe = Generator(**SMALL)
    made = generator.untrained(recipe)
    with store.repeatable():
        generator.train(made, recipe, *select(DIGITS).take())
    return made.requires_grad_(False)


def nearest(images: torch.Tensor, pool: torch.Tensor) -> float:
    """Mean squared error to the nearest image of the pool, mean over the images."""
    return (images.flatten(1)[:, None] - pool.flatten(1)[None]).square().mean(2).amin(1).mean().item()


@pytest.mark.parametrize("side", [8, 16, 28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_generators_draw_and_critics_judge_every_size(side, channels):
    rng = torch.Generator().manual_seed(1)
    made = dcgan.Prior(dcgan.drawing((channels, side, side), 5, 4, rng), dcgan.critic((channels, side, side), 4, rng))
    images = made(torch.randn(3, made.noise))
    assert images.shape == (3, channels, side, side) and images.min() >= 0 and images.max() <= 1
    assert made.critic(images).shape == (3,)
    with pytest.raises(ValueError, match="25x25 pixels"):
        dcgan.drawing((1, 25, 25), 5, 4, rng)


def test_the_penalty_of_a_linear_critic_is_known():
    """D(x) = <w, x> has the slope w everywhere, so the penalty is (|w| - 1)^2."""
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 1)).double()
    got = generator.gradient_penalty(linear, torch.rand(5, 3, 2, 2, dtype=torch.double))
    norm = linear[1].weight.detach().norm()
    assert got.item() == pytest.approx(float((norm - 1) ** 2))
    slope = torch.autograd.grad(got, linear[1].weight)[0]
    assert torch.allclose(slope, 2 * (norm - 1) * linear[1].weight / norm)
    (real, fake), shares = torch.rand(2, 5, 3, 2, 2, dtype=torch.double), torch.rand(5, 1, 1, 1, dtype=torch.double)
    loss = generator.wasserstein(linear, real, fake, shares, 10.0)
    gap = (linear(fake) - linear(real)).mean().detach()
    assert loss.item() == pytest.approx(float(gap + 10 * (norm - 1) ** 2))


def test_the_penalty_is_differentiated_through_the_slope():
    critic = dcgan.critic((1, 8, 8), 4, torch.Generator().manual_seed(0)).double()
    images, weight = torch.rand(3, 1, 8, 8, dtype=torch.double), critic.layers[0].weight
    (got,) = torch.autograd.grad(generator.gradient_penalty(critic, images), weight)
    for place in ((0, 0, 1, 2), (3, 0, 0, 0), (2, 0, 3, 1)):
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                weight[place] += step
            ends.append(generator.gradient_penalty(critic, images).item())
            with torch.no_grad():
                weight[place] -= step
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float(got[place]), rel=1e-4, abs=1e-8)


def test_a_generator_draws_digits_and_its_critic_knows_them(prior):
    true, rng = select(HELD_OUT).take()[0], torch.Generator().manual_seed(3)
    images, noise = prior(torch.randn(100, prior.noise, generator=rng)), torch.rand(100, 1, 8, 8, generator=rng)
    assert nearest(images, true) < 0.4 * nearest(noise, true)
    assert nearest(true, images) < 0.4 * nearest(true, noise), "and not one digit alone"
    assert prior.critic(true).mean() > prior.critic(noise).mean() + 0.5


def test_an_attack_that_searches_the_noise_finds_digits(prior):
    """The gradient of one image is matched over the noise by Adam: what is found looks like digits, from step 0 on."""
    hidden, _, seen = observed(question())
    matching, z = Matching(seen, squared_distance), torch.zeros(1, prior.noise, requires_grad=True)
    adam, losses = torch.optim.Adam([z], 0.1), []
    for _ in range(60):
        images = prior(z)
        x = images.detach().requires_grad_()
        loss, (slope,) = matching(x, hidden.labels, [x])
        (z.grad,) = torch.autograd.grad(images, z, slope)
        adam.step()
        losses.append(float(loss))
    noise, true = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)), select(HELD_OUT).take()[0]
    assert losses[-1] < 0.5 * losses[0]
    assert nearest(prior(z), true) < 0.4 * nearest(noise, true)
    assert psnr(hidden.images, prior(z)).mean() > psnr(hidden.images, noise).mean() + 3


@pytest.mark.parametrize("form", ["wgan_gp", "dcgan"])
def test_the_same_recipe_gives_the_same_bits(form):
    recipe = Generator(**{**SMALL, "epochs": 2, "form": form})
    shas = []
    for _ in range(2):
        torch.rand(3)  # another state of the global generator
        made = generator.untrained(recipe)
        with store.repeatable():
            generator.train(made, recipe, *select(Images(name="digits", count=128)).take())
        shas.append(state_sha(made.state_dict()))
    assert shas[0] == shas[1] != state_sha(generator.untrained(recipe).state_dict())


def test_a_training_that_diverges_or_does_nothing_is_named():
    images = select(Images(name="digits", count=64)).take()
    for wrong, message in (({"rate": 1e30}, "diverged in epoch"), ({"epochs": 1, "critic_steps": 9}, "more `epochs`")):
        recipe = Generator(**{**SMALL, **wrong})
        with pytest.raises(RecipeError, match=f"generator {recipe.hash} of digits train.*{message}"):
            generator.train(generator.untrained(recipe), recipe, *images)


# ---------------------------------------------------------------------------------------------------------------------
# Restorers.


@pytest.mark.parametrize("how", [{"noise": 0.15}, {"block": 2, "blur": 0.5}])
def test_a_restorer_beats_what_it_is_given_on_images_it_never_saw(how):
    recipe = Restorer(images=Images(name="photos", size=16), degradation=how, width=16, depth=2, epochs=4)
    network = restorer.untrained(recipe)
    with store.repeatable():
        restorer.train(network, recipe, *select(recipe.images).take())
    true = select(Images(name="photos", size=16, split="test")).take()[0]
    given = restorer.degraded(true, recipe.degradation, torch.Generator().manual_seed(5))
    got = network(given).detach()
    assert got.shape == true.shape and got.min() >= 0 and got.max() <= 1
    assert psnr(true, got).mean() > psnr(true, given).mean() + 1


def test_a_degradation_does_what_it_says():
    images, rng = torch.rand(2, 3, 8, 8), torch.Generator()
    blocks = restorer.degraded(images, Degradation(block=4), rng)
    assert torch.allclose(blocks[1, 2, :4, 4:], images[1, 2, :4, 4:].mean().expand(4, 4))
    flat = torch.full((1, 1, 8, 8), 0.25)
    assert torch.allclose(restorer.degraded(flat, Degradation(blur=2.0), rng), flat), "a blur keeps the mean"
    point = torch.zeros(1, 1, 17, 17).index_put((torch.tensor(0),) * 2 + (torch.tensor(8),) * 2, torch.tensor(1.0))
    blurred = restorer.degraded(point, Degradation(blur=1.5), rng)[0, 0]
    offsets = torch.arange(17.0) - 8
    assert float((blurred.sum(0) * offsets.square()).sum()) == pytest.approx(1.5**2, rel=0.05), "its variance"
    grey = restorer.degraded(torch.full((4, 1, 32, 32), 0.5), Degradation(noise=0.05), rng)
    assert float(grey.std()) == pytest.approx(0.05, rel=0.05)
    with pytest.raises(RecipeError, match="blocks of 3 pixels do not tile images of 8x8"):
        restorer.degraded(images, Degradation(block=3), rng)
