"""Peeling against numpy, by hand; its certificates; what a server sets; and the network that the paper has."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import ROOT, question

from leakboard.attack import contract
from leakboard.attack.crafted import built, described
from leakboard.attack.first_layer import (
    first_linear,
    pixels_of,
)
from leakboard.config import Benchmark
from leakboard.models import Normalise, build, in_precision, normal_
from leakboard.rng import generator
from leakboard.threat import Gradient, Public
from leakboard.victim.network import network

PEEL = contract.load(ROOT / "baselines" / "peel" / "attack.py")
SIDE = (3, 6, 6)
HONEST = {"name": "fc2", "init": "normal", "precision": "float64"}


def batch(count: int, seed: int = 0, levels: int = 255) -> tuple[Tensor, Tensor]:
    """Images (count, *SIDE) of `levels` + 1 grey levels, around brightnesses of their own, and labels."""
    rng = generator("peel", seed)
    images = (torch.rand(count, 1, 1, 1, generator=rng) + torch.rand(count, *SIDE, generator=rng)) / 2
    return (levels * images).round() / levels, torch.randint(10, (count,), generator=rng)


def seen_of(model: nn.Module, images: Tensor, labels: Tensor, budget: int | None = None) -> Gradient:
    loss = nn.CrossEntropyLoss()
    gradient = torch.autograd.grad(loss(model(images), labels), list(model.parameters()))
    return Gradient(
        model=model, loss=loss, shape=tuple(images.shape), classes=10, gradient=gradient, budget=budget
    )  # fmt: skip


def drawn(width: int, name: str = "fc2", seed: int = 1) -> nn.Module:
    """The paper's network in double precision, for images of SIDE."""
    return in_precision(normal_(build(name, SIDE, 10, width), generator("peel network", seed)), "float64")


def peeled(seen: Gradient, **settings: object) -> tuple[Tensor, Tensor]:
    got = contract.configure(PEEL, settings).reconstruct(seen, torch.Generator())
    assert got.labels is not None
    return got.images, got.labels


def places(images: Tensor, got: Tensor) -> tuple[Tensor, Tensor]:
    """(distance to the nearest true image, which that is) of everything that was handed in."""
    return torch.cdist(got.double().flatten(1), images.double().flatten(1), p=torch.inf).min(1)


# Three images of two pixels, two units, two classes: unit 0 is opened by the first image alone, unit 1 by all of them.
WEIGHT, BIAS = np.array([[4.0, -4.0], [1.0, 1.0]]), np.array([-1.0, 0.1])
OUT, OUT_BIAS = np.array([[0.3, -0.2], [-0.1, 0.4]]), np.array([0.05, -0.05])
DOTS, NAMES = np.array([[0.8, 0.2], [0.2, 0.6], [0.4, 0.5]]), np.array([1, 0, 1])


def by_hand(dots: np.ndarray, names: np.ndarray, out_of: int) -> tuple[np.ndarray, np.ndarray]:
    """What these dots add to the gradients of the first weight (2, 2) and bias (2,) of a batch of `out_of`."""
    units = dots @ WEIGHT.T + BIAS
    logits = units.clip(0) @ OUT.T + OUT_BIAS
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    slope = ((shares - np.eye(2)[names]) @ OUT) * (units > 0) / out_of
    return slope.T @ dots, slope.sum(0)


def small(dots: np.ndarray, names: np.ndarray) -> Gradient:
    """The same network and its observed gradients, all written by numpy."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (WEIGHT, BIAS, OUT, OUT_BIAS), strict=True):
            parameter.copy_(torch.tensor(value))
    weight, bias = by_hand(dots, names, len(dots))
    parts = (torch.tensor(weight), torch.tensor(bias), torch.zeros(2, 2), torch.zeros(2))
    shape = (len(dots), 1, 1, 2)
    return Gradient(model=model, loss=nn.CrossEntropyLoss(), shape=shape, classes=2, gradient=parts)


def test_one_image_is_peeled_off_the_next_as_by_hand():
    """With two images the second stands behind the first; with three, what is left is a mixture and stays."""
    images, labels = peeled(small(DOTS[:2], NAMES[:2]))
    np.testing.assert_allclose(images.flatten(1).numpy(), DOTS[:2], atol=1e-12)
    assert labels.tolist() == NAMES[:2].tolist()
    images, labels = peeled(small(DOTS, NAMES))
    np.testing.assert_allclose(images.flatten(1).numpy(), DOTS[:1], atol=1e-12)
    assert labels.tolist() == [1]


def test_what_is_left_is_the_gradient_of_the_others():
    seen = small(DOTS, NAMES)
    got = contract.configure(PEEL, {}).reconstruct(seen, torch.Generator())
    rest = by_hand(DOTS[1:], NAMES[1:], len(DOTS))[1]
    assert got.info["loss"] == pytest.approx(float(np.linalg.norm(rest)), rel=1e-9)


@pytest.mark.parametrize("settings", [{}, {"rounded": True}, {"arithmetic": "float32"}], ids=str)
def test_a_cascade_finds_what_no_row_shows_and_certifies_nothing_else(settings):
    images, labels = batch(12)
    model = drawn(400)
    seen = seen_of(model, images, labels)
    got, named = peeled(seen, **settings)
    error, which = places(images, got)
    assert (error < 1e-3).all() and which.unique().numel() == len(got), "a false certificate, or one twice"
    assert torch.equal(named, labels[which])
    rows = (model[1][1](images.double().flatten(1)) > 0).sum(0)
    opened = model[1][1](images.double().flatten(1)) > 0
    alone = opened[:, rows == 1].any(1)
    assert len(got) > int(alone.sum()) > 0, "no more than rows show"


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("arithmetic", ["float64", "float32"])
def test_batches_that_no_cascade_empties_have_no_false_certificate(seed, arithmetic):
    """Of 40 images in 150 rows there are mixtures in every pass."""
    images, labels = batch(40, seed)
    got, named = peeled(seen_of(drawn(150, seed=seed), images, labels), arithmetic=arithmetic)
    error, which = places(images, got)
    assert len(got) < 40 and (error < 1e-3).all() and torch.equal(named, labels[which])


def test_a_label_that_does_not_fit_is_no_certificate():
    """The same row with one more image's loss in it: the image is still readable, and its gradient no longer is."""
    seen = small(DOTS[:1], NAMES[:1])
    assert len(peeled(seen)[0]) == 1
    louder = tuple(1.001 * part for part in seen.gradient)
    changed = Gradient(model=seen.model, loss=seen.loss, shape=seen.shape, classes=2, gradient=louder)
    assert len(peeled(changed)[0]) == 0


def test_rounding_takes_8_bits_from_images_that_have_them_and_from_no_others():
    for levels, whole in ((255, True), (16, False)):
        images, labels = batch(6, 3, levels)
        got, _ = peeled(seen_of(drawn(300), images, labels), rounded=True, arithmetic="float32")
        error, _ = places(images, got)
        assert len(got) and (error < 1e-3).all()
        assert bool((error == 0).all()) == whole


def test_single_precision_loses_what_rounding_keeps():
    images, labels = batch(30, 5)
    seen = seen_of(drawn(300), images, labels)
    plain, rounded = (len(peeled(seen, arithmetic="float32", rounded=flag)[0]) for flag in (False, True))
    assert plain <= rounded <= len(peeled(seen)[0])


def test_a_budget_that_is_spent_ends_the_cascade_with_what_is_certified():
    images, labels = batch(12)
    model = drawn(400)
    counts = [len(peeled(seen_of(model, images, labels, budget))[0]) for budget in (3, 150, None)]
    assert counts[0] == 0 <= counts[1] <= counts[2] and counts[2] > 0


def test_what_the_attack_does_with_its_passes_stays_within_the_budget():
    images, labels = batch(12)
    seen, spent = seen_of(drawn(400), images, labels, 150), []
    seen.model.register_forward_hook(lambda _, given, out: spent.append(-(-len(given[0]) // 12)))
    assert len(peeled(seen)[0]) and 0 < sum(spent) <= 150


def test_behind_a_normalisation_the_same_pixels_are_found():
    images, labels = batch(8)
    plain = normal_(build("mlp", SIDE, 10, 200), generator("peel network", 2)).double()
    mean, deviation = (0.4, 0.5, 0.6), (0.5, 0.4, 0.3)
    model = nn.Sequential(Normalise(mean, deviation).double(), plain)
    images = images.double()
    got, named = peeled(seen_of(model, images, labels))
    error, which = places(images, got)
    assert len(got) and (error < 1e-6).all() and torch.equal(named, labels[which])
    inputs = (images - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(deviation).view(-1, 1, 1)
    torch.testing.assert_close(pixels_of(model, inputs), images, atol=1e-7, rtol=0)


# What a server sets.


def test_mirrored_weights_are_those_of_curious_abandon_honesty():
    """The same draws in the same order, so that the two papers' rows on one board attack the same network."""
    cah = contract.load(ROOT / "baselines" / "cah" / "attack.py")
    for theirs, ours in (({"scale": 0.7}, {"server": "trap", "mirrored": True, "scale": 0.7}), ({"trap": False}, {})):
        both = []
        for kind, settings in ((cah, theirs), (PEEL, ours)):
            model = build("mlp", SIDE, 10, 20)
            contract.craft(contract.configure(kind, settings), model, None, generator("craft"))
            both.append(model[1].weight)
        assert torch.equal(*both)


@pytest.mark.parametrize("server", ["passive", "trap", "soliton_free", "soliton_data"])
def test_what_a_server_crafts_leaves_its_process_as_the_network_itself(server):
    public = Public(batch(16, 9)[0], torch.zeros(16).long())
    base = drawn(40)
    attack = contract.configure(PEEL, {"server": server, "batch": 16})
    crafted = contract.craft(attack, drawn(40), public, generator("craft"))
    form, state = described(crafted, base)
    assert form == {"form": "model"}
    model = built(form, state, base)
    assert first_linear(model).weight.dtype == torch.float64
    torch.testing.assert_close(first_linear(model).bias, first_linear(crafted).bias, atol=0, rtol=0)
    assert bool(first_linear(model).bias.any()) == server.startswith("soliton")


def test_soliton_biases_empty_a_batch_that_random_weights_do_not():
    images, labels = batch(40, 2)
    public = Public(batch(40, 8)[0], torch.zeros(40).long())
    found = []
    for server in ("passive", "soliton_data"):
        attack = contract.configure(PEEL, {"server": server, "batch": 40})
        model = contract.craft(attack, drawn(120), public, generator("craft"))
        got, named = peeled(seen_of(model, images, labels))
        error, which = places(images, got)
        assert (error < 1e-3).all() and torch.equal(named, labels[which])
        found.append(len(got))
    assert found[1] > found[0]


@pytest.mark.parametrize(
    ("settings", "more", "skips"),
    [
        ({}, {"threat": {}}, False),
        ({"server": "trap"}, {"threat": {}}, True),
        ({"server": "trap"}, {"threat": {"conduct": "malicious"}}, False),
        ({"server": "soliton_free", "batch": 9}, {"threat": {"conduct": "malicious"}}, True),
        ({}, {"network": {"name": "lenet_sigmoid"}}, True),
        ({}, {"network": {"name": "fc2", "bias": False}}, True),
    ],
    ids=str,
)
def test_it_skips_boards_on_which_it_cannot_work(settings, more, skips):
    asked = question(**{"network": {"name": "fc2"}, "batch": 8, **more})
    assert (contract.configure(PEEL, settings).skips(asked) is not None) == skips


# The network that the paper has, and what certificates are judged by.


def test_the_papers_network_is_normal_at_first_then_xavier_without_biases():
    asked = question(network={**HONEST, "width": 500})
    model = network(asked, 0)
    first, second = (module for module in model.modules() if isinstance(module, nn.Linear))
    assert float(first.weight.detach().std()) == pytest.approx(0.5, rel=0.02)
    bound = math.sqrt(6 / (500 + 10))
    assert 0.95 * bound < float(second.weight.detach().abs().max()) <= bound
    assert not first.bias.any() and not second.bias.any()
    assert not torch.equal(first.weight, next(iter(network(asked, 1).parameters())))


def test_a_network_in_double_precision_takes_single_images_and_has_the_same_weights():
    single, double = (network(question(network={**HONEST, "precision": kind}), 0) for kind in ("float32", "float64"))
    images = torch.rand(3, 1, 8, 8, generator=generator("x"))
    assert double(images).dtype == torch.float64
    for one, other in zip(single.parameters(), double.parameters(), strict=True):
        assert other.dtype == torch.float64 and torch.equal(one.double(), other)
    torch.testing.assert_close(single(images).double(), double(images), atol=1e-4, rtol=1e-4)
    assert double.float()(images).dtype == torch.float32, "cast anew, it computes in what its weights are"


def test_precision_and_init_at_their_defaults_move_no_hash():
    said: dict = {"name": "fc2"}
    plain = question(network=said)
    assert question(network={**said, "precision": "float32", "init": "default"}).hash == plain.hash
    others = [question(network={**said, **more}).hash for more in ({"precision": "float64"}, {"init": "normal"})]
    assert len({plain.hash, *others}) == 3
    with pytest.raises(ValueError, match="precision"):
        Benchmark.model_validate({**plain.model_dump(), "network": {"name": "fc2", "precision": "half"}})
