"""Costs, derivatives, optimisers and label rules against independent computations of the same thing."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import pytest
import torch
from torch import nn
from toys import ROOT

from leakboard.attack.clock import Clock
from leakboard.attack.costs import where_observed
from leakboard.attack.descent import signed_adam
from leakboard.attack.labels import idlg_label
from leakboard.attack.matching import Matching, cosine_distance, squared_distance
from leakboard.attack.priors import total_variation, total_variation_slope
from leakboard.models import NETWORKS, build, form, uniform_
from leakboard.rng import generator, seed_of, seeded
from leakboard.threat import Gradient

COSTS = {"squared": squared_distance, "cosine": cosine_distance}
SEED = 5965115492823825474  # of ("attack", 1, 0): committed numbers hang on it
SHAPES = [(3, 4), (5,), (2, 3, 2, 2)]
# network -> (shape, further arguments) small enough for float64 double backward in a moment
TINY = {"lenet_sigmoid": ((1, 8, 8), ()), "lenet_relu": ((1, 8, 8), ()), "convnet": ((3, 9, 9), (2,))}
TINY |= {"mlp": ((1, 4, 4), (8,)), "fc2": ((1, 4, 4), (8,)), "cnn3": ((1, 8, 8), (2,)), "vgg7": ((1, 8, 8), (2,))}
TINY |= {
    "vgg16": ((1, 8, 8), (4,)),
    "resnet9": ((3, 8, 8), (2,)),
    "resnet34": ((3, 8, 8), (2,)),
    "resnet20fc": ((3, 8, 8), (8,)),
    "mcnn": ((1, 32, 32), (2,)),
    "scnn": ((1, 32, 32), (2,)),
}
TINY |= {"softmax": ((1, 4, 4), ()), "mlp_sigmoid": ((1, 4, 4), (8,)), "dae": ((1, 4, 4), (10,))}
TINY |= {
    "cnn_pooled": ((1, 16, 16), (8,)),  # of fewer units none is open
    "resnet20": ((3, 8, 8), (2,)),
    "resnet18": ((3, 8, 8), (2,)),
    "cnn": ((1, 8, 8), (8,)),
    "tanh": ((1, 22, 22), (2,)),
    "lenet_pooled": ((1, 8, 8), (2,)),
}


def plain_cost(name: str, got, observed):
    """The same cost, written for autograd."""
    x, y = (torch.cat([part.flatten() for part in parts]) for parts in (got, observed))
    return (x - y).square().sum() if name == "squared" else 1 - nn.functional.cosine_similarity(x, y, dim=0, eps=1e-30)


def pair(seed: int):
    rng = torch.Generator().manual_seed(seed)
    return [[torch.randn(shape, generator=rng, dtype=torch.float64) for shape in SHAPES] for _ in range(2)]


@pytest.mark.parametrize("name", COSTS)
def test_cotangent_is_the_derivative_of_the_cost(name):
    got, observed = pair(1)
    value, cotangent = COSTS[name](got, observed)
    free = [part.clone().requires_grad_() for part in got]
    plain = plain_cost(name, free, observed)
    torch.testing.assert_close(value, plain.detach(), rtol=1e-12, atol=1e-14)
    for ours, autograd in zip(cotangent, torch.autograd.grad(plain, free), strict=True):
        torch.testing.assert_close(ours, autograd, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", COSTS)
def test_cotangent_agrees_with_finite_differences(name):
    got, observed = pair(2)
    _, cotangent = COSTS[name](got, observed)
    for layer, part in enumerate(got):
        for index in range(part.numel()):
            sides = []
            for step in (1e-5, -1e-5):
                moved = [other.clone() for other in got]
                moved[layer].view(-1)[index] += step
                sides.append(COSTS[name](moved, observed)[0])
            slope = float(sides[0] - sides[1]) / 2e-5
            assert abs(slope - float(cotangent[layer].view(-1)[index])) < 1e-6


def test_costs_vanish_only_at_the_truth():
    got, observed = pair(3)
    assert float(squared_distance(observed, observed)[0]) == 0
    assert abs(float(cosine_distance([3 * part for part in observed], observed)[0])) < 1e-12
    assert float(cosine_distance([-part for part in observed], observed)[0]) == pytest.approx(2)
    assert float(squared_distance(got, observed)[0]) > 0 < float(cosine_distance(got, observed)[0])


@pytest.mark.parametrize("name", COSTS)
def test_a_cost_where_observed_is_the_cost_of_those_entries(name):
    got, observed = pair(5)
    there = [torch.arange(part.numel()).view(part.shape) % 3 > 0 for part in observed]
    left = [part * kept for part, kept in zip(observed, there, strict=True)]
    value, cotangent = where_observed(COSTS[name])(got, left)
    alone = [[part[kept] for part, kept in zip(parts, there, strict=True)] for parts in (got, observed)]
    wanted, slopes = COSTS[name](*alone)
    assert float(value) == pytest.approx(float(wanted), rel=1e-12)
    for part, kept, slope in zip(cotangent, there, slopes, strict=True):
        assert torch.equal(part[~kept], torch.zeros_like(part[~kept]))
        torch.testing.assert_close(part[kept], slope, rtol=1e-12, atol=1e-15)


def test_tiny_inputs_cover_every_network():
    assert set(TINY) == set(NETWORKS), "give the new network a tiny input in TINY"


def tiny_seen(name: str, kind: torch.dtype) -> Gradient:
    shape, more = TINY[name]
    with seeded("tiny", name):
        model = build(name, shape, 4, *more).to(kind).eval()
        images = torch.rand(2, *shape, dtype=kind)
    loss = nn.CrossEntropyLoss()
    truth = torch.autograd.grad(loss(model(images), torch.tensor([1, 3])), list(model.parameters()))
    return Gradient(model=model, loss=loss, shape=(2, *shape), classes=4, gradient=truth)


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_matching_is_the_plain_double_backward(name, cost, kind, tolerance):
    """With images and label logits both free, as DLG has them."""
    seen = tiny_seen(name, kind)
    rng = torch.Generator().manual_seed(4)
    images = torch.rand(seen.shape, generator=rng, dtype=torch.float64).to(kind).requires_grad_()
    logits = torch.randn(2, 4, generator=rng, dtype=torch.float64).to(kind).requires_grad_()
    precision = "float64" if kind is torch.float64 else "float32"
    value, ours = Matching(seen, COSTS[cost], precision)(images, logits.softmax(1), [images, logits])
    loss = seen.loss(seen.model(images), logits.softmax(1))
    got = torch.autograd.grad(loss, list(seen.model.parameters()), create_graph=True)
    plain = plain_cost(cost, got, seen.gradient)
    torch.testing.assert_close(value, plain.detach(), rtol=tolerance, atol=tolerance * 1e-2)
    for mine, theirs in zip(ours, torch.autograd.grad(plain, [images, logits]), strict=True):
        assert float((mine - theirs).norm()) <= tolerance * float(theirs.norm()) + 1e-12
        assert float(theirs.norm()) > 0


def test_matching_accumulates_no_gradient():
    seen = tiny_seen("lenet_sigmoid", torch.float32)
    images = torch.rand(seen.shape, requires_grad=True)
    Matching(seen, squared_distance)(images, torch.tensor([0, 1]), [images])
    assert images.grad is None and all(parameter.grad is None for parameter in seen.model.parameters())


def test_signed_adam_decays_at_three_five_and_seven_eighths():
    """Under a constant gradient every step of Adam on signs is as long as its rate."""
    points = [torch.full((1,), 0.9, dtype=torch.float64)]
    signed_adam(
        lambda x: (x.detach(), torch.ones_like(x)),
        points[0],
        16,
        1e-2,
        lambda step, x, value: points.append(x.clone()),
    )
    lengths = [float(a - b) for a, b in pairwise(points)]
    rates = [1e-2] * 6 + [1e-3] * 4 + [1e-4] * 4 + [1e-5] * 2
    assert lengths == pytest.approx(rates, rel=1e-4)


def test_signed_adam_stays_in_the_box_and_leaves_its_start_alone():
    start = torch.tensor([-1.0, 0.5, 2.0])
    seen: list[torch.Tensor] = []
    slope = torch.tensor([7.0, -1e-6, 3.0])

    def objective(x):
        return (slope * x).detach(), slope

    end, values = signed_adam(objective, start, 30, 0.2, lambda step, x, value: seen.append(x.clone()))
    assert torch.equal(start, torch.tensor([-1.0, 0.5, 2.0]))
    assert all(float(x.min()) >= 0 and float(x.max()) <= 1 for x in seen) and len(seen) == 30
    assert torch.equal(end, torch.tensor([0.0, 1.0, 0.0])), "the sign moves as far for 1e-6 as for 7"
    assert torch.equal(values, slope * seen[-2])


def test_total_variation_of_a_ramp():
    """0.1 per column and 0.05 per row, whatever batch and channels."""
    across, down = torch.arange(6, dtype=torch.float64) * 0.1, torch.arange(5, dtype=torch.float64) * -0.05
    ramp = (down[:, None] + across[None]).expand(2, 3, 5, 6)
    assert float(total_variation(ramp)) == pytest.approx(0.15, abs=1e-12)
    assert float(total_variation(torch.full((1, 1, 4, 4), 0.3))) == 0


def test_slope_of_total_variation_is_its_derivative():
    images = torch.rand(3, 2, 3, 7, 5, generator=generator("slope"), dtype=torch.float64)
    values, slope = total_variation_slope(images)
    for index, problem in enumerate(images):
        free = problem.clone().requires_grad_()
        variation = total_variation(free)
        torch.testing.assert_close(values[index], variation.detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(slope[index], torch.autograd.grad(variation, free)[0], rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("flipped", [False, True], ids=["weight first", "bias first"])
def test_idlg_label_is_exact_on_random_sigmoid_lenets(flipped):
    wrong = 0
    for draw in range(100):
        rng = torch.Generator().manual_seed(draw)
        model = uniform_(build("lenet_sigmoid", (1, 8, 8), 10), rng)
        if flipped:  # another order of registration: bias before weight in the last layer
            last = model[-1]
            weight = last._parameters.pop("weight")
            last._parameters["weight"] = weight
        label = torch.randint(0, 10, (1,), generator=rng)
        loss = nn.CrossEntropyLoss()
        output = loss(model(torch.rand(1, 1, 8, 8, generator=rng)), label)
        gradient = torch.autograd.grad(output, list(model.parameters()))
        seen = Gradient(model=model, loss=loss, shape=(1, 1, 8, 8), classes=10, gradient=gradient)
        assert (gradient[-1].ndim == 2) == flipped
        wrong += int(idlg_label(seen) != label)
    assert wrong == 0


def test_a_model_without_a_linear_layer_has_no_label_to_read():
    model = nn.Sequential(nn.Conv2d(1, 1, 3))
    seen = Gradient(model=model, loss=nn.CrossEntropyLoss(), shape=(1, 1, 8, 8), classes=2, gradient=())
    with pytest.raises(ValueError, match="no linear layer"):
        idlg_label(seen)


def test_uniform_fills_every_parameter_between_its_bounds():
    model = uniform_(build("lenet_sigmoid", (3, 32, 32), 10), generator("bounds"))
    values = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert float(values.min()) >= -0.5 and float(values.max()) < 0.5
    assert all(float(part.detach().abs().max()) > 0.3 for part in model.parameters())
    assert abs(float(values.mean())) < 0.02 and float(values.std()) == pytest.approx(1 / math.sqrt(12), rel=0.02)


def test_seeds_depend_on_every_part_and_on_the_order():
    assert (
        len({seed_of("a", 1, 2), seed_of("a", 2, 1), seed_of("b", 1, 2), seed_of("a", 12), seed_of("a", "1", 2)}) == 5
    )
    assert 0 <= seed_of("a") < 2**63 and seed_of("attack", 1, 0) == SEED


def test_seeded_restores_the_global_generator():
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    with seeded("one"):
        first = torch.rand(4)
    assert torch.equal(torch.rand(4), wanted)
    with pytest.raises(KeyError), seeded("one"):
        assert torch.equal(torch.rand(4), first)
        raise KeyError
    with seeded("two"):
        assert not torch.equal(torch.rand(4), first)


def test_paused_time_is_not_counted():
    clock = Clock(torch.device("cpu"))
    with clock.running():
        time.sleep(0.05)
        with clock.paused():
            time.sleep(0.5)
            assert clock.total >= 0.05
        time.sleep(0.05)
    assert 0.1 <= clock.total < 0.5


def test_pretrained_resnet20_is_as_accurate_as_published(real_data, monkeypatch):
    """91.6 % on the 1,017 test images that are here; on the first 300 of them at least 88 %."""
    from leakboard import config
    from leakboard.data import dataset
    from leakboard.victim.network import network

    monkeypatch.chdir(ROOT)
    asked = config.benchmark("resnet20_cifar10_gradient_trained", "paper")
    test = dataset("cifar10", "test")
    images, labels = test.take(test.available[:300])
    with torch.no_grad():
        right = network(asked, 0)(images).argmax(1) == labels
    assert 0.88 <= float(right.double().mean()) < 1


@pytest.mark.parametrize(("keys", "gone"), [({"bias": False}, "bias"), ({"batch_norm": False}, "batch norm")])
def test_forms_take_out_what_they_say(keys, gone):
    network = form(build("resnet20", (3, 8, 8), 10, 2), **keys)
    linear = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert (linear[-1].bias is None) == (gone == "bias")
    assert (not norms) == (gone == "batch norm")
    gradient = torch.autograd.grad(network(torch.rand(2, 3, 8, 8)).sum(), list(network.parameters()))
    assert all(torch.isfinite(part).all() for part in gradient)


def test_dropout_drops_in_train_mode_only_and_needs_a_layer():
    network = form(build("cnn", (1, 8, 8), 10, 64), dropout=0.5)
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(network.eval()(images), network(images))
    with seeded("dropout"):
        assert not torch.equal(network.train()(images), network(images))
    with pytest.raises(ValueError, match="no dropout"):
        form(build("lenet_relu", (1, 8, 8), 10), dropout=0.5)
