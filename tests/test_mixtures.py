"""What takes a batch apart: unmixing a linear layer (CPA), copies of every epoch (DLF), a generator (GRNN)."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from sklearn.decomposition import FastICA
from torch import nn
from toys import ROOT

from leakboard.attack import contract
from leakboard.attack.imprint import gradient_of
from leakboard.models import build
from leakboard.models.generator import images_and_labels
from leakboard.rng import generator, seeded
from leakboard.score.similarity import oracle_cosine
from leakboard.threat import Gradient, LocalTraining, ModelUpdate

CPA, DLF, GRNN = (ROOT / "baselines" / paper / "attack.py" for paper in ("cpa", "dlf", "grnn"))


def within(path):
    """The functions beside an attack, which is loaded by its path."""
    return SimpleNamespace(**contract.load(path).reconstruct.__globals__)


UNMIXING = {"rate": 0.03, "steps": 1000, "tv": 0.0, "negentropy": 30.0}


def mixed(batch: int, width: int = 32, side: int = 24) -> tuple[torch.Tensor, Gradient]:
    """Independent light-tailed images (as photographs are) around their own brightness; the gradient of their batch."""
    draws = torch.rand(batch, 1, side, side, generator=generator("draws", batch))
    brightness = torch.rand(batch, 1, 1, 1, generator=generator("brightness"))
    images = 0.6 * brightness + 0.4 * draws
    labels = torch.arange(batch) % 10
    with seeded("mixed"):
        model = build("fc2", (1, side, side), 10, width)
    loss = nn.CrossEntropyLoss()
    gradient = torch.autograd.grad(loss(model(images), labels), list(model.parameters()))
    return images, Gradient(model=model, loss=loss, shape=images.shape, classes=10, labels=labels, gradient=gradient)


def unmix(seen: Gradient, **settings: float) -> torch.Tensor:
    attack = contract.configure(contract.load(CPA), {**UNMIXING, **settings})
    return attack.reconstruct(seen, generator("cpa")).images


def test_unmixing_finds_every_image_with_its_sign_and_brightness():
    images, seen = mixed(6)
    got = unmix(seen, decorrelation=0.1)
    assert oracle_cosine(images, got) > 0.98
    nearest = torch.cdist(images.flatten(1), got.flatten(1)).min(1)
    assert nearest.indices.unique().numel() == 6, "one source each"
    assert (images.flatten(1) - got.flatten(1)[nearest.indices]).abs().mean() < 0.05
    rows = gradient_of(next(m for m in seen.model.modules() if isinstance(m, nn.Linear)), seen.model, seen.gradient)[0]
    oracle = FastICA(6, whiten="unit-variance", random_state=0, max_iter=2000).fit_transform(rows.T.numpy()).T
    assert oracle_cosine(images, got) > oracle_cosine(images, torch.tensor(oracle).view_as(images)) - 0.01


def test_unmixing_does_not_depend_on_the_order_of_the_batch():
    images, seen = mixed(5)
    order = torch.tensor([3, 0, 4, 1, 2])
    loss = nn.CrossEntropyLoss()
    swapped = torch.autograd.grad(loss(seen.model(images[order]), seen.labels[order]), list(seen.model.parameters()))
    again = replace(seen, gradient=swapped)
    first, second = unmix(seen, decorrelation=0.1), unmix(again, decorrelation=0.1)
    assert torch.cdist(first.flatten(1), second.flatten(1), p=torch.inf).min(1).values.max() < 0.05


def test_more_images_than_units_cannot_be_taken_apart():
    images, seen = mixed(12, width=6)
    assert len(unmix(seen)) <= 6
    assert oracle_cosine(images, unmix(seen)) < 0.7


def test_the_bias_gradient_is_the_same_mixture_of_ones():
    images, seen = mixed(4)
    layer = next(module for module in seen.model.modules() if isinstance(module, nn.Linear))
    weight, bias = gradient_of(layer, seen.model, seen.gradient)
    mixture = torch.linalg.lstsq(images.flatten(1).T.double(), weight.T.double()).solution  # (B, out): V transposed
    assert torch.allclose(mixture.sum(0), bias.double(), atol=1e-5)


def update_of(epochs: int, batch: int, images: torch.Tensor, labels: torch.Tensor) -> ModelUpdate:
    steps = epochs * -(-len(images) // batch)
    with seeded("cnn3"):
        model = build("cnn3", tuple(images.shape[1:]), 10, 2)
    local = LocalTraining(0.01, steps, epochs=epochs, batch=batch)
    update = tuple(-0.01 * torch.ones_like(parameter) for parameter in model.parameters())
    return ModelUpdate(
        model=model,
        loss=nn.CrossEntropyLoss(),
        shape=images.shape,
        classes=10,
        labels=labels,
        update=update,
        local=local,
    )


@pytest.mark.parametrize("copies", [True, False])
def test_local_steps_go_through_the_copies_of_their_epoch(copies):
    module = within(DLF)
    images = torch.arange(2 * 5).float().view(2, 5, 1, 1, 1) if copies else torch.arange(5).float().view(1, 5, 1, 1, 1)
    local = LocalTraining(0.01, 6, epochs=2, batch=2)
    batches = module._batches(images, torch.arange(5), local)
    values = [part.flatten().tolist() for part, _ in batches]
    second = [[5, 6], [7, 8], [9]] if copies else [[0, 1], [2, 3], [4]]
    assert values == [[0, 1], [2, 3], [4], *second]


def test_copies_are_matched_before_they_are_averaged():
    module = within(DLF)
    first = torch.rand(6, 3, 4, 4, generator=generator("copies"))
    copies = torch.stack([first, first[torch.tensor([4, 2, 0, 5, 1, 3])], first.flip(0)])
    alike, apart = torch.zeros(6, dtype=torch.long), torch.arange(6)
    assert torch.allclose(module.together(copies, alike), first, atol=1e-6)
    assert torch.allclose(module.together(copies, apart), copies.mean(0), atol=1e-6), "labels bind a copy to its image"


def test_the_order_prior_forgets_the_order_and_nothing_else():
    attack = contract.configure(contract.load(DLF), {"tv": 0.0, "order": 1.0})
    images = torch.rand(4, 3, 8, 8, generator=generator("order"))
    kernel = torch.randn(6, 3, 3, 3, generator=generator("kernel"))
    permuted = torch.stack([images, images[torch.tensor([2, 0, 3, 1])]])
    assert attack._priors(permuted, kernel) < 1e-12
    assert attack._priors(torch.stack([images, images.flip(-1)]), kernel) > 1e-3


@pytest.mark.parametrize("labelled", [True, False])
def test_federated_averaging_stays_within_its_budget(labelled):
    images, labels = torch.rand(4, 1, 8, 8, generator=generator("small")), torch.tensor([1, 2, 3, 4])
    seen = update_of(2, 2, images, labels)
    seen.labels, seen.budget = (labels if labelled else None), 14
    calls = []
    seen.model.register_forward_hook(lambda *_: calls.append(1))
    contract.configure(contract.load(DLF), {}).reconstruct(seen, generator("dlf"))
    assert len(calls) == 12 if labelled else len(calls) == 14


@pytest.mark.parametrize("side", [8, 16, 32])
def test_generator_draws_pixels_and_shares(side):
    network = images_and_labels((3, side, side), 7, 128, generator("weights"))
    images, shares = network(torch.randn(5, 128, generator=generator("noise")))
    assert images.shape == (5, 3, side, side) and images.min() >= 0 and images.max() <= 1
    assert torch.allclose(shares.sum(1), torch.ones(5)) and shares.shape == (5, 7)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 4, 4), (3, 32, 16)])
def test_generator_refuses_sides_that_it_cannot_double_to(shape):
    with pytest.raises(ValueError, match="8, 16, 32"):
        images_and_labels(shape, 10, 128, generator("weights"))


def test_grnn_costs_are_what_they_say():
    module = within(GRNN)
    got, seen = [torch.randn(3, 4, generator=generator(k)).double() for k in ("got", "seen")]
    value, cotangent = module.distance([got.clone()], [seen])
    leaf = got.clone().requires_grad_()
    square = (leaf - seen).square().sum()
    (square + square.sqrt()).backward()
    assert torch.allclose(value, (square + square.sqrt()).detach()) and torch.allclose(cotangent[0], leaf.grad)
    ramp = torch.arange(8.0).repeat(8, 1).expand(2, 3, 8, 8) / 8
    assert torch.isclose(module.squared_variation(ramp), torch.tensor(2 / 64))
