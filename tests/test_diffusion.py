"""Diffusion models: chains against diffusers' own and closed forms, and what a trained one is good for."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from sklearn.svm import SVC
from torch import nn

from leakboard.attack import diffusion as chains
from leakboard.config import Images
from leakboard.config.recipes import Diffusion
from leakboard.data import select
from leakboard.models.diffusion import diffusing, linear_alphas
from leakboard.recipes import diffusion, store
from leakboard.recipes.classifier import state_sha
from leakboard.score import psnr

diffusers = pytest.importorskip("diffusers")

DIGITS, HELD_OUT = Images(name="digits"), Images(name="digits", split="test")
SMALL = {"images": DIGITS, "width": 16, "levels": 2, "epochs": 25, "rate": 2e-3}
GOOD = 0.5  # share of samples that are to be named as their class, where chance is 0.1; set before any was drawn


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def held_out(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = select(HELD_OUT).take()
    return images[:count], labels[:count]


@pytest.fixture(scope="module")
def network():
    """A tiny one with weights as they are drawn, in float64."""
    return diffusing((1, 8, 8), 10, 8, 2, rng()).double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def prior():
    """A small model of digits, trained in seconds."""
    recipe = Diffusion(**SMALL)
    made = diffusion.untrained(recipe)
    with store.repeatable():
        diffusion.train(made, recipe, *select(DIGITS).take())
    return made.requires_grad_(False)


class Knowing(nn.Module):
    """Predicts the noise that leads to the image it knows (C, H, W), in [0, 1], from wherever it is asked."""

    def __init__(self, known: torch.Tensor) -> None:
        super().__init__()
        self.known = known
        self.register_buffer("alphas", linear_alphas())

    def forward(self, noisy, t, labels=None):
        level = self.alphas[t].view(-1, 1, 1, 1)
        return (noisy - level.sqrt() * (2 * self.known - 1)) / (1 - level).sqrt()


class Fixed(Knowing):
    """Predicts the same noise at a time, whatever it is asked about."""

    def forward(self, noisy, t, labels=None):
        return torch.stack([torch.randn(self.known.shape, generator=rng(int(one))) for one in t]).to(noisy)


# ---------------------------------------------------------------------------------------------------------------------
# Chains.


def test_the_linear_schedule_is_that_of_diffusers():
    assert torch.allclose(linear_alphas().float(), diffusers.DDPMScheduler().alphas_cumprod, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_the_chain_is_ddim_as_diffusers_has_it(network, steps):
    """diffusers skips times in its own ways; given the times of ours as a schedule of its own, it skips none."""
    times, point = chains.times_of(network, steps), torch.randn(3, 1, 8, 8, generator=rng(), dtype=torch.double)
    ends = [1.0, *network.alphas[times].flip(0).tolist()]
    betas = [1 - after / before for before, after in pairwise(ends)]
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=steps, trained_betas=betas, clip_sample=False)
    scheduler.set_timesteps(steps)
    labels, true = torch.tensor([3, 1, 4]), point
    for number, t in zip(scheduler.timesteps, times, strict=True):
        with_class, without = (network(true, t.expand(3), one) for one in (labels, torch.full((3,), 10)))
        true = scheduler.step(2.5 * with_class - 1.5 * without, int(number), true, eta=0.0).prev_sample
    got = chains.sample(network, point, labels, steps, guidance=2.5)
    assert torch.allclose(got, ((true + 1) / 2).clamp(0, 1), atol=1e-3) and got.std() > 0.1
    assert torch.allclose(chains._chain(network, point, labels, steps, 2.5), true, rtol=1e-3, atol=1e-3)


def test_a_chain_takes_each_time_once_and_no_more_than_there_are(network):
    assert torch.equal(chains.times_of(network, 1000), torch.arange(999, -1, -1))
    assert chains.times_of(network, 4).tolist() == [999, 666, 333, 0]
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=f"{steps} steps; the prior has 1000 times"):
            chains.times_of(network, steps)


def test_what_guides_is_the_difference_of_a_class_to_none(network):
    point, t, labels = torch.randn(2, 1, 8, 8, generator=rng(), dtype=torch.double), torch.tensor(500), torch.arange(2)
    of_class, of_none = network(point, t.expand(2), labels), network(point, t.expand(2))
    assert not torch.allclose(of_class, of_none)
    for guidance, true in ((1.0, of_class), (0.0, of_none), (4.0, 4 * of_class - 3 * of_none)):
        assert torch.allclose(chains.predicted(network, point, t, labels, guidance), true)
    assert torch.equal(chains.predicted(network, point, t, None, 4.0), of_none)


@pytest.mark.parametrize("block", [1, 2, 4])
def test_a_prior_that_knows_the_image_is_led_to_it(block):
    known = torch.rand(3, 8, 8, generator=rng(), dtype=torch.double)
    given = chains._means(known[None], block).expand(2, -1, -1, -1)
    got = chains.ddrm(Knowing(known), given, rng(1), block=block, noise=0.1, steps=20)
    assert torch.allclose(got, known.expand_as(got), atol=1e-6)
    assert torch.allclose(
        chains.sample(Knowing(known), torch.randn_like(given), None, 20), known.expand_as(got), atol=1e-6
    )


@pytest.mark.parametrize("noise, block", [(0.1, 1), (0.05, 2), (0.3, 4), (0.0, 2)])
def test_ddrm_is_that_of_the_singular_value_decomposition(network, noise, block):
    """Kawar et al. 2022, written in the coordinates of an H that is a matrix; a draw is the same draw, turned."""
    given, steps, eta, eta_b = torch.rand(2, 1, 8, 8, generator=rng(), dtype=torch.double), 9, 0.85, 0.9
    rows = torch.eye(64, dtype=torch.double).view(64, 1, 8, 8)
    H = nn.functional.avg_pool2d(rows, block).flatten(1).T
    U, S, turned = torch.linalg.svd(H, full_matrices=True)
    size = torch.zeros(64, dtype=torch.double)
    size[: len(S)] = S
    seen = torch.zeros(2, 64, dtype=torch.double)
    seen[:, : len(S)] = ((2 * given - 1).flatten(1) @ H.T) @ U / S
    unsure = torch.where(size > 0, 2 * noise / size.clamp_min(1e-12), torch.inf)
    draws, times = rng(5), chains.times_of(network, steps)
    sigmas = [*((1 - network.alphas[times]) / network.alphas[times]).sqrt().double(), torch.tensor(0.0)]
    draw = lambda: torch.randn(2, 64, generator=draws).double() @ turned.T  # noqa: E731
    spread = (sigmas[0] ** 2 - torch.where(size > 0, unsure, 0) ** 2).sqrt()
    x = torch.where(size > 0, seen, 0) + spread * draw()
    for t, (now, after) in zip(times, pairwise(sigmas), strict=True):
        noisy = (x @ turned / (1 + now**2).sqrt()).view(2, 1, 8, 8)
        eps = network(noisy, t.expand(2)).flatten(1) @ turned.T
        clean, keep = x - now * eps, math.sqrt(1 - eta**2)
        free = clean + keep * after * eps
        blurred = clean + keep * after * (seen - clean) / unsure.clamp_min(1e-12)
        sharp, rest = (1 - eta_b) * clean + eta_b * seen, (after**2 - (eta_b * unsure) ** 2).clamp_min(0).sqrt()
        middle = torch.where(size == 0, free, torch.where(after < unsure, blurred, sharp))
        x = middle + torch.where((size == 0) | (after < unsure), eta * after, rest) * draw()
    true = ((x @ turned + 1) / 2).clamp(0, 1).view(2, 1, 8, 8)
    got = chains.ddrm(network, given, rng(5), block=block, noise=noise, steps=steps, eta=eta, eta_known=eta_b)
    assert torch.allclose(got, true, atol=1e-5) and got.std() > 0.1


def test_without_noise_what_was_given_comes_back(prior):
    images, _ = held_out(5)
    assert torch.allclose(chains.ddrm(prior, images, rng(), noise=0.0, steps=5), images, atol=1e-5)
    assert torch.allclose(chains.ddrm(prior, images, rng(), noise=1e-3), images, atol=0.05)
    got = chains.ddrm(prior, images, rng(), block=2, noise=0.0)
    unclamped = (got > 1e-3) & (got < 1 - 1e-3)
    inside = -nn.functional.max_pool2d(-unclamped.float(), 2) > 0  # blocks in which no pixel was clamped
    gap = (nn.functional.avg_pool2d(got, 2) - nn.functional.avg_pool2d(images, 2)).abs()
    assert inside.any() and gap[inside].max() < 1e-4 and gap.mean() < 0.05
    with pytest.raises(ValueError, match="blocks of 3 pixels do not tile images of 8x8"):
        chains.ddrm(prior, images, rng(), block=3)


@pytest.mark.parametrize("steps", [1, 12])
def test_the_slope_of_the_search_is_that_of_a_chain_of_constants(steps):
    known = torch.rand(3, 4, 4, generator=rng(), dtype=torch.double)
    model, target = Fixed(known), torch.rand(2, 3, 4, 4, generator=rng(1), dtype=torch.double)
    z = torch.randn(2, 3, 4, 4, generator=rng(2), dtype=torch.double).requires_grad_()
    losses = (chains._pixels(chains._chain(model, z, None, steps, 1.0)) - target).square().flatten(1).mean(1)
    (true,) = torch.autograd.grad(losses.sum(), z)
    value, got = chains.straight_through(model, z.detach(), target, None, steps, 1.0)
    assert torch.allclose(got, true) and torch.allclose(value, losses.detach()) and not got.requires_grad


# ---------------------------------------------------------------------------------------------------------------------
# What a trained one is good for.


def test_training_lowers_the_error_on_images_it_never_saw(prior):
    images, labels = held_out(200)
    before, after = (
        float(diffusion.error(one, images, labels, 0.1, rng(7)).detach())
        for one in (diffusion.untrained(Diffusion(**SMALL)), prior)
    )
    assert after < 0.5 * before and after < 0.5, "to predict no noise at all costs 1"


def test_samples_are_named_as_their_class_by_a_judge_of_real_digits(prior):
    (images, names), (true, true_names) = select(DIGITS).take(), held_out(400)
    judge = SVC(gamma=0.5).fit(images.flatten(1).numpy(), names.numpy())
    assert judge.score(true.flatten(1).numpy(), true_names.numpy()) > 0.95
    labels = torch.arange(10).repeat_interleave(10)
    got = chains.sample(prior, torch.randn(100, 1, 8, 8, generator=rng()), labels, 20, guidance=4.0)
    assert got.min() >= 0 and got.max() <= 1
    assert judge.score(got.flatten(1).numpy(), labels.numpy()) >= GOOD


def test_ddrm_takes_noise_off_images_it_never_saw(prior):
    true, _ = held_out(40)
    given = (true + 0.3 * torch.randn(true.shape, generator=rng())).clamp(0, 1)
    got = chains.ddrm(prior, given, rng(1), noise=0.3)
    assert psnr(true, got).mean() > psnr(true, given).mean() + 1


def test_the_search_comes_nearer_to_its_target_and_knows_no_batch(prior):
    images, labels = held_out(6)
    target = chains._means(images, 2)
    start, end = (chains.semantic(prior, target, labels, rng(3), 10, n, rate=0.05) for n in (0, 30))
    assert (end - target).square().mean() < 0.6 * (start - target).square().mean()
    alone = chains.semantic(prior, target[:1], labels[:1], rng(3), 10, 3)
    assert torch.allclose(alone, chains.semantic(prior, target, labels, rng(3), 10, 3)[:1], atol=1e-4)


def test_the_same_generator_gives_the_same_bits_and_no_other_is_touched(prior):
    images, labels = held_out(2)
    state, sha = torch.get_rng_state(), state_sha(prior.state_dict())
    for made in (
        lambda seed: chains.ddrm(prior, images, rng(seed), steps=5),
        lambda seed: chains.semantic(prior, images, labels, rng(seed), 5, 2),
    ):
        assert torch.equal(made(1), made(1)) and not torch.equal(made(1), made(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert state_sha(prior.state_dict()) == sha
