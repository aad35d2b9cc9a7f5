"""GGL: its objective against autograd, its two spaces, and searches that find what was planted."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from toys import ROOT

from leakboard.attack import contract
from leakboard.attack.untouched import unchanged
from leakboard.rng import generator, seeded
from leakboard.threat import Gradient, Public
from leakboard.victim.leak import gradient
from leakboard.victim.secrets import Secret

GGL = contract.load(ROOT / "baselines" / "ggl" / "attack.py")
MODULE = __import__("sys").modules[GGL.__module__]
LOSS = nn.CrossEntropyLoss()
SIZE = 6


def network() -> nn.Module:
    with seeded("network", 1):
        return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.Sigmoid(), nn.Flatten(), nn.Linear(36, 10))


def public(count: int = 200) -> torch.Tensor:
    """Images of few factors, so that components tell all of them."""
    rng = generator("public")
    factors = torch.randn(SIZE, 64, generator=rng)
    return (0.5 + 0.04 * torch.randn(count, SIZE, generator=rng) @ factors).clamp(0, 1).view(-1, 1, 8, 8)


def observation(**more) -> tuple[Gradient, torch.Tensor]:
    images, model = public(), network()
    hidden = Secret(images[-1:], torch.tensor([3]))
    shared = {"model": model, "loss": LOSS, "shape": (1, 1, 8, 8), "classes": 10, "budget": 400}
    held = Public(images[:-1], torch.zeros(len(images) - 1).long())
    return Gradient(**{**shared, "public": held, "gradient": gradient(model, LOSS, hidden), **more}), hidden.images


def slopes(count: int, seed: int) -> list[torch.Tensor]:
    rng = generator("slopes", seed)
    return [torch.randn(count, 4, 3, generator=rng).double(), torch.randn(count, 5, generator=rng).double()]


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
def test_the_cotangent_is_autograds(adaptive, size):
    """Of candidates shorter and longer than what is observed, some of whose entries are zero."""
    observed = tuple(part[0] * (part[0] > -0.5) for part in slopes(1, 1))
    cost = MODULE.Cost(observed, adaptive)
    got = [(size * part[0]).requires_grad_() for part in slopes(1, 2)]
    value, cotangent = cost([g.detach() for g in got], list(observed))
    kept = [g * (o != 0) if adaptive else g for g, o in zip(got, observed, strict=True)]
    share = (MODULE.norm(observed) / MODULE.norm(kept)).clamp(max=1.0) if adaptive else 1.0
    written_out = sum((share * g - o).square().sum() for g, o in zip(kept, observed, strict=True)) / 2
    assert float(value) == pytest.approx(float(written_out.detach()))
    for ours, theirs in zip(cotangent, torch.autograd.grad(written_out, got), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("adaptive", [True, False])
def test_values_of_many_candidates_are_those_of_each(adaptive):
    observed = tuple(0.3 * part[0] * (part[0] > 0) for part in slopes(1, 1))
    cost, many = MODULE.Cost(observed, adaptive), slopes(7, 3)
    each = [cost([part[index] for part in many], list(observed))[0] for index in range(7)]
    torch.testing.assert_close(cost.values(many), torch.stack(each))


def test_gradients_of_a_generation_are_those_of_each_candidate():
    seen, _ = observation()
    images, label = public(5), torch.tensor([3])
    together = MODULE.slopes_of(seen, images, label)
    for index, image in enumerate(images):
        for ours, theirs in zip(together, gradient(seen.model, LOSS, Secret(image[None], label)), strict=True):
            torch.testing.assert_close(ours[index], theirs, rtol=1e-4, atol=1e-6)


def test_divergence_is_that_of_two_gaussians():
    z = torch.randn(4, 50, generator=generator("z")) * torch.tensor([[0.1], [1.0], [2.0], [5.0]]) + 0.5
    fitted = torch.distributions.Normal(z.mean(1), z.var(1, unbiased=False).sqrt())
    wanted = torch.distributions.kl_divergence(fitted, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(MODULE.divergence(z), wanted, rtol=1e-4, atol=1e-5)


def test_components_have_the_moments_of_the_images():
    images = public(4000)
    draw, size = MODULE.components(images, SIZE)
    drawn = draw(torch.randn(20_000, size, generator=generator("z"))).flatten(1)
    error = 5 / math.sqrt(4000)  # five standard errors, relative to a deviation of one
    spread = images.flatten(1).std(0)
    assert ((drawn.mean(0) - images.flatten(1).mean(0)).abs() <= error * spread).all()
    assert ((drawn.std(0) / spread - 1).abs() <= error).all()


@pytest.mark.parametrize("search", ["cma", "adam"])
def test_a_search_finds_the_image_among_the_components(search):
    pytest.importorskip("cma") if search == "cma" else None
    seen, true = observation()
    more = {"population": 10} if search == "cma" else {"restarts": 2, "steps": 200}
    attack = contract.configure(
        GGL, {"space": "components", "search": search, "noise": SIZE, "divergence": 0.0, **more}
    )
    with unchanged([seen]):
        got = attack.reconstruct(seen, generator("search"))
    mean = (public().mean(0) - true).square().mean()
    assert (got.images - true).square().mean() < 0.1 * mean and got.labels.tolist() == [3]
    again = attack.reconstruct(seen, generator("search"))
    assert torch.equal(got.images, again.images), "the same seed, the same image"


def test_without_the_gradient_the_prior_speaks():
    """Of the length and the zeros of what is observed, and no nearer to the secret than the prior is."""
    seen, true = observation()
    settings = {"space": "components", "noise": SIZE, "search": "adam", "steps": 50}
    told, attack = contract.configure(GGL, settings), contract.configure(GGL, {**settings, "told": False})
    drawn = attack._observed(seen, torch.tensor([3]), generator("drawn"))
    assert float(MODULE.norm(drawn)) == pytest.approx(float(MODULE.norm(seen.gradient)), rel=1e-4)
    apart = [(one.reconstruct(seen, generator("s")).images - true).square().mean() for one in (told, attack)]
    assert apart[0] < apart[1]


def test_the_gradient_of_another_image_of_the_class_leads_to_that_image():
    """Of the label, the only one of its kind among the public; without one, there is nothing to search with."""
    other = public()[7:8]
    held = Public(public()[:-1], (torch.arange(199) == 7).long() * 3)
    seen, true = observation(public=held)
    settings = {"space": "components", "noise": SIZE, "search": "adam", "divergence": 0.0, "restarts": 2, "steps": 200}
    got = contract.configure(GGL, {**settings, "of_class": True}).reconstruct(seen, generator("search")).images
    assert (got - other).square().mean() < 0.1 * (got - true).square().mean()
    seen, _ = observation()
    with pytest.raises(ValueError, match="no public image has the label"):
        contract.configure(GGL, {**settings, "of_class": True}).reconstruct(seen, generator("search"))


@pytest.mark.parametrize("budget", [1, 3, 4, 49, 51, 100, 401])
@pytest.mark.parametrize("of_class", [False, True])
def test_no_search_spends_more_than_its_budget(budget, of_class):
    attack = contract.configure(GGL, {"of_class": of_class})
    for rounds, each in (attack._generations(budget), attack._descents(budget)):
        assert rounds >= 1 and each >= 1 and rounds * each + of_class <= max(budget, 1 + of_class)


def test_an_adaptive_search_sees_through_pruning_and_clipping():
    seen, true = observation()
    pruned = tuple(0.1 * g * (g.abs() > g.abs().median()) for g in seen.gradient)
    seen, _ = observation(gradient=pruned)
    settings = {"space": "components", "noise": SIZE, "search": "adam", "divergence": 0.0, "restarts": 2, "steps": 200}
    both = [contract.configure(GGL, {**settings, "adaptive": adaptive}) for adaptive in (True, False)]
    seen.model = network()
    apart = [float((one.reconstruct(seen, generator("s")).images - true).square().mean()) for one in both]
    assert apart[0] < 0.5 * apart[1]
