"""Peer's boards: what each asks otherwise than the first, what its restorers have seen, and what `retrieved` means."""

from __future__ import annotations

import math

import pytest
import torch
from toys import ROOT

from leakboard import config
from leakboard.attack import contract
from leakboard.config import Images
from leakboard.config.recipes import Denoiser, Diffusion, Restorer
from leakboard.data import DataError, select
from leakboard.models import build
from leakboard.recipes import denoiser, restorer
from leakboard.recipes.trained import Need, refuse
from leakboard.score.images import retrieved
from leakboard.victim.secrets import victim_slice

PEER = contract.load(ROOT / "baselines" / "peer" / "attack.py")
BASE = "lenet_cifar10_sequence"
TWISTS = {  # what a board may ask otherwise than the one that it is like
    "k2": {"federation", "batch"}, "k8": {"federation", "batch"}, "k16": {"federation", "batch"},
    "n1": {"batch"}, "n16": {"batch"}, "tau3": {"federation", "budget"}, "rounds3": {"federation", "budget"},
    "trained": {"network", "training"}, "labels": {"threat"}, "noise_0_000001": {"defence"},
    "noise_0_00001": {"defence"}, "clipping_0_001": {"defence"}, "secure": {"defence"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("twist", TWISTS)
def test_a_board_asks_one_thing_otherwise_than_the_base(twist):
    base, other = (config.benchmark(name, "paper") for name in (BASE, f"{BASE}_{twist}"))
    assert config.like(other.name) and other.trials == base.trials >= 10
    one, two = base.asked(), other.asked()
    assert {key for key in one.keys() | two.keys() if one.get(key) != two.get(key)} == TWISTS[twist]
    steps = [one.budget // (one.federation.steps * one.federation.rounds) for one in (base, other)]
    assert steps[0] == steps[1], "as many steps of the search"
    assert other.batch % (other.federation.clients - 1) == 0, "equal shares"


def test_every_board_tells_images_from_a_thousand_others_unless_there_are_none():
    boards = [name for name in config.params("peer").boards if name != "lenet_imagenet_sequence"]
    for name in boards:
        benchmark = config.benchmark(name, "paper")
        assert "retrieval" in benchmark.metrics and benchmark.public_images.count >= 1000


def test_retrieved_is_what_is_nearest_to_its_own():
    true = torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1, 1)
    others = torch.tensor([0.3, 0.62]).view(2, 1, 1, 1)
    images = torch.tensor([0.15, 0.58, 0.6]).view(3, 1, 1, 1)
    assert retrieved(true, images, others).tolist() == [True, False, False]
    assert retrieved(true, true, true).tolist() == [False, False, False], "of equals none is found"
    assert retrieved(true, true, others).all()


def test_the_network_is_the_authors():
    model = build("lenet_pooled", (3, 128, 128), 1000)
    sizes = [tuple(parameter.shape) for parameter in model.parameters()]
    assert sizes == [(32, 3, 5, 5), (32,), (64, 32, 5, 5), (64,), (512, 65536), (1000, 512)]


@pytest.mark.parametrize("name", sorted(config.params("peer").boards))
def test_what_post_processing_has_seen_is_public_and_no_victim(name):
    benchmark = config.benchmark(name, "quick")
    attack = PEER(post="restorer")
    recipe = attack.prior(benchmark)
    assert isinstance(recipe, Restorer) and recipe.images == benchmark.public_images and recipe.error == "absolute"
    refuse(Need("prior", recipe), benchmark, victim_slice(benchmark))
    hidden = recipe.model_copy(update={"images": benchmark.data})
    with pytest.raises(DataError, match="training images of the prior"):
        refuse(Need("prior", hidden), benchmark, victim_slice(benchmark))
    assert PEER().prior(benchmark) is None and PEER(post="mean_filter").prior(benchmark) is None


@pytest.mark.parametrize(
    ("post", "kind"),
    [
        ("restorer", Restorer),
        ("fitted", Restorer),
        ("ddrm", Diffusion),
        ("semantic", Diffusion),
        ("class_only", Diffusion),
    ],
)
def test_whatever_post_processing_is_trained_on_is_public(post, kind):
    for name in (BASE, f"{BASE}_public"):
        benchmark = config.benchmark(name, "paper")
        recipe = PEER(post=post).prior(benchmark)
        assert isinstance(recipe, kind) and recipe.trained_on == benchmark.public_images


def test_the_denoiser_of_photographs_is_asked_of_photographs_alone():
    digits, photographs = (config.benchmark(BASE, scale) for scale in config.SCALES)
    attack = PEER(post="dncnn")
    assert "photographs" in attack.skips(digits) and attack.prior(digits) is None
    assert attack.skips(photographs) is None and isinstance(attack.prior(photographs), Denoiser)


def test_the_denoiser_takes_noise_off_photographs(real_data):
    """Its own authors' task: noise of 25 / 255, which it lowers by more than a third of itself."""
    recipe = Denoiser(images={"name": "cifar10", "split": "test"})
    network = denoiser.untrained(recipe)
    denoiser.train(network, recipe, torch.zeros(0), torch.zeros(0))
    true = select(Images(name="cifar10", split="test", count=20)).take()[0]
    noisy = true + 25 / 255 * torch.randn(true.shape, generator=torch.Generator().manual_seed(0))
    errors = [float((images - true).square().mean().sqrt()) for images in (noisy, network(noisy).detach())]
    assert errors[1] < 2 / 3 * errors[0] and network(noisy).shape == true.shape


def test_an_adversary_is_another_training_and_none_is_none():
    images = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    plain = {"images": {"name": "digits"}, "degradation": {"noise": 0.2}, "form": "nafnet", "width": 4, "depth": 1}
    recipes = [Restorer(**plain, epochs=2, **more) for more in ({}, {"adversary": 0.0}, {"adversary": 0.1})]
    assert recipes[0].hash == recipes[1].hash != recipes[2].hash
    ends = []
    for recipe in recipes:
        network = restorer.untrained(recipe)
        restorer.train(network, recipe, images, torch.zeros(32))
        ends.append(network.leave.weight)
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[1], ends[2])


def test_a_critic_that_learns_tells_restored_from_clean():
    clean = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(2)).round()
    grey = torch.full_like(clean, 0.5)
    recipe = Restorer(images={"name": "digits"}, degradation={"noise": 0.2}, adversary=1.0, width=8)
    adversary = restorer.Adversary(recipe, 1, "cpu")
    failed = [float(adversary(grey, clean)) for _ in range(100)]
    assert failed[0] == pytest.approx(math.log(2), abs=0.3) and failed[-1] > 2 * failed[0]


def test_the_absolute_error_is_another_recipe_with_another_end():
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    recipes = [
        Restorer(images={"name": "digits"}, degradation={"noise": 0.2}, width=4, depth=1, epochs=3, **more)
        for more in ({}, {"error": "absolute"})
    ]
    assert recipes[0].hash != recipes[1].hash
    assert recipes[0].hash == recipes[0].model_copy(update={"error": "squared"}).hash
    networks = [restorer.untrained(recipe) for recipe in recipes]
    for network, recipe in zip(networks, recipes, strict=True):
        restorer.train(network, recipe, images, torch.zeros(16))
    assert not torch.equal(networks[0].leave.weight, networks[1].leave.weight)
