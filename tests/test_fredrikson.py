"""Model inversion: its mathematics, what it hands in, what it asks a black box, and what it is aimed at."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from toys import ROOT, question

from leakboard import config
from leakboard.attack import contract
from leakboard.config import Images
from leakboard.config.recipes import Classifier
from leakboard.data import DataError, select
from leakboard.data.loading import dataset_of
from leakboard.models.stack import dae
from leakboard.recipes import classifier
from leakboard.recipes.classifier import classifier_of
from leakboard.recipes.store import RecipeError
from leakboard.rng import generator
from leakboard.run.trial import Job, attempt
from leakboard.victim.leak import leak
from leakboard.victim.secrets import Secret

FILE = ROOT / "baselines" / "fredrikson" / "attack.py"
ATTACK = contract.load(FILE)
PART = sys.modules[ATTACK.__module__]
SHAPE = (1, 8, 6)


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).requires_grad_(False)


def released(model: nn.Module, access: str = "white", budget: int = 500, defence=None, target: int = 3):
    """What is seen of `model`, and the list of what it was asked."""
    asked = question("released", {"access": access}, budget=budget, defence=defence or {})
    secret = Secret(torch.rand(1, *SHAPE, generator=generator("secret", 1)), torch.tensor([target]))
    seen = leak(asked, secret, model, None, 5, generator("clients", 1))
    queries, answer = [], seen.query
    seen.query = lambda images: (queries.append(images.clone()), answer(images))[1]
    return seen, queries


def run(seen, **settings):
    return ATTACK(**settings).reconstruct(seen, generator("attack", 1))


# ---------------------------------------------------------------------------------------------------------------------
# Gradients from answers.


def test_differences_over_pixels_are_the_gradient():
    model, x = linear(), torch.rand(1, *SHAPE, generator=generator("x", 1)) * 0.8 + 0.1
    along = PART.directions("pixels", 0, SHAPE, generator("d", 1))
    score = lambda images: model(images.double()).softmax(1)[:, 3]  # noqa: E731
    model.double()
    free = x.double().requires_grad_()
    (slope,) = torch.autograd.grad(score(free).sum(), free)
    got = PART.numerical(score, x.double(), float(score(x)), along.double(), 1e-5)
    torch.testing.assert_close(got, slope, rtol=1e-4, atol=1e-9)


def test_of_a_linear_score_blocks_give_the_mean_slope_in_each_block():
    weights = torch.randn(SHAPE, generator=generator("w", 1)).double()
    along = PART.directions("blocks", 0, SHAPE, generator("d", 1)).double()
    assert along.shape == (12, *SHAPE) and torch.equal(along.sum(0), torch.ones(SHAPE).double()), "they tile the image"
    x = torch.full((1, *SHAPE), 0.5).double()
    got = PART.numerical(lambda images: (images * weights).sum((1, 2, 3)), x, float((x * weights).sum()), along, 1.0)
    means = weights.view(4, 2, 3, 2).mean((1, 3)).repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(got[0, 0], means)


def test_of_a_linear_score_a_smooth_direction_gives_its_share_of_the_slope():
    weights = torch.randn(SHAPE, generator=generator("w", 1)).double()
    along = PART.directions("smooth", 3, SHAPE, generator("d", 1)).double()
    assert along.shape == (6, *SHAPE) and torch.equal(along[:3], -along[3:])
    torch.testing.assert_close(along.abs().amax((1, 2, 3)), torch.ones(6).double())
    x = torch.full((1, *SHAPE), 0.5).double()
    got = PART.numerical(lambda images: (images * weights).sum((1, 2, 3)), x, float((x * weights).sum()), along, 0.3)
    sizes = along.square().sum((1, 2, 3))
    expected = sum((weights * d).sum() / size * d for d, size in zip(along, sizes, strict=True))
    torch.testing.assert_close(got[0], expected)


def test_bright_pixels_are_followed_backwards_and_every_query_is_an_image():
    seen, queries = released(linear(), "black")
    along = PART.directions("pixels", 0, SHAPE, generator("d", 1))
    x = torch.cat([torch.zeros(1, 1, 4, 6), torch.ones(1, 1, 4, 6)], 2)
    got = PART.numerical(lambda images: seen.query(images)[:, 3], x, float(seen.query(x)[0, 3]), along, 1.0)
    assert got.abs().min() > 0, "nothing is lost where a pixel cannot move any further"
    assert all(asked.min() >= 0 and asked.max() <= 1 for asked in queries)


# ---------------------------------------------------------------------------------------------------------------------
# What is handed in, and when it stops.


def test_from_zeros_a_softmax_regression_gives_its_own_direction_away():
    model = linear()
    seen, _ = released(model)
    got = run(seen, rate=10.0, steps=300)
    assert got.info["loss"] <= 0.01 and float(model(got.images).softmax(1)[0, 3]) == pytest.approx(1 - got.info["loss"])
    weights = model[1].weight
    toward = (weights[3] - weights.mean(0)).view(1, *SHAPE)
    assert torch.cosine_similarity(got.images.flatten(), toward.flatten(), dim=0) > 0.8


class Hill(nn.Module):
    """Confidence in class 0 that rises to its summit at .5 and falls beyond it; counts its passes."""

    def __init__(self):
        super().__init__()
        self.still, self.passes = nn.Parameter(torch.zeros(1)), 0

    def forward(self, x):
        self.passes += 1
        height = 1 - 20 * (x.mean((1, 2, 3)) - 0.5).square() + 0 * self.still
        return torch.stack([height, 0 * height], 1)


def test_the_best_iterate_is_handed_in_not_the_last():
    """A step too long throws it far beyond the summit and it never comes back as high."""
    seen, _ = released(Hill(), target=0)
    got = run(seen, start="grey", rate=1.0, steps=1)
    assert torch.equal(got.images, torch.full((1, *SHAPE), 0.5))
    seen, _ = released(Hill(), target=0)
    got = run(seen, rate=4000.0, steps=5)
    heights = [float(Hill()(image[None]).softmax(1)[0, 0].detach()) for image in (got.images[0], torch.zeros(SHAPE))]
    assert heights[0] >= heights[1] and got.info["loss"] == pytest.approx(1 - heights[0])


@pytest.mark.parametrize(("patience", "passes"), [(3, 4), (7, 8)])
def test_it_ends_after_so_many_steps_without_progress(patience, passes):
    model = Hill()
    seen, _ = released(model, target=0)
    run(seen, start="grey", rate=1.0, patience=patience, steps=50)
    assert seen.model.passes == passes


def test_it_ends_at_the_threshold_and_within_the_budget():
    seen, _ = released(linear())
    assert run(seen, rate=10.0, threshold=0.5).info["loss"] <= 0.5
    model = Hill()
    seen, _ = released(model, budget=6, target=0)
    run(seen, rate=1e-6)
    assert seen.model.passes == 6


def test_the_form_with_priors_stays_in_the_box_and_near_its_start():
    seen, _ = released(linear())
    free = run(seen, search="adam", start="grey", rate=0.1, steps=30, tv=0.0, distance=0.0).images
    held = run(seen, search="adam", start="grey", rate=0.1, steps=30, tv=1.0, distance=1.0).images
    assert all(image.min() >= 0 and image.max() <= 1 for image in (free, held))
    assert (held - 0.5).norm() < (free - 0.5).norm()


# ---------------------------------------------------------------------------------------------------------------------
# Black box.


def test_a_black_box_is_asked_for_answers_and_no_more_than_its_budget():
    seen, queries = released(linear(), "black", budget=60)
    got = run(seen, search="differences", start="grey", steps=8)
    assert sum(map(len, queries)) <= 60 and got.info["loss"] < 0.8
    assert not list(seen.model.parameters()) and not seen.query(torch.rand(1, *SHAPE)).requires_grad
    assert ATTACK().skips(SimpleNamespace(threat=SimpleNamespace(access="black"), scale="quick"))


def test_where_rounding_leaves_one_answer_the_start_is_handed_in():
    seen, _ = released(linear(), "black", defence={"rounding": {"step": 1.0}})
    model_says = seen.query(torch.full((1, *SHAPE), 0.5))
    got = run(seen, search="differences", start="grey", width=0.01)
    assert torch.equal(got.images, torch.full((1, *SHAPE), 0.5)) and set(model_says[0].tolist()) <= {0.0, 1.0}


def test_queries_are_counted_on_both_sides_of_the_border():
    board = config.benchmark("softmax_att_released_blackbox", "quick")
    settings = config.params("fredrikson").settings("blocks", board.name)
    line = attempt(Job(board, "fredrikson", "blocks", FILE, settings, 1, 0)).line
    assert line["status"] == "ok" and line["evaluations"] % (16 + 8) == 1 and line["evaluations"] > 1, line


# ---------------------------------------------------------------------------------------------------------------------
# The networks that it is aimed at.


def digits_classifier(pretraining=None, name: str = "dae") -> Classifier:
    training = {"epochs": 1, "learning_rate": 1e-9, "augment": False, "pretraining": pretraining}
    return Classifier(network={"name": name, "width": 40}, training=training, data=Images(name="digits"), seed=1)


def test_pretrained_autoencoders_find_the_way_back_to_pixels():
    images, labels = select(Images(name="digits", count=400)).take()
    errors = []
    for pretraining in (None, {"epochs": 30, "learning_rate": 0.01}):
        recipe = digits_classifier(pretraining)
        network = classifier.untrained(recipe)
        classifier.train(network, recipe, images, labels)
        errors.append(float((network.decode(network.encode(images)) - images).square().mean()))
    flat = float((images.mean(0) - images).square().mean())
    assert errors[1] < 0.8 * flat < errors[0], f"{errors}, the mean image {flat}"
    with pytest.raises(RecipeError, match="expected a stack of autoencoders"):
        classifier.train(linear(), digits_classifier({"epochs": 1, "learning_rate": 0.1}, "mlp"), images, labels)


def test_the_search_in_codes_hands_in_what_they_decode_to():
    torch.manual_seed(0)
    stack = dae((1, 8, 6), 5, 20)
    seen, _ = released(stack)
    got = run(seen, search="latent", rate=1.0, steps=5)
    assert got.images.shape == (1, 1, 8, 6) and got.images.min() >= 0 and got.images.max() <= 1
    with pytest.raises(ValueError, match="needs a stack of autoencoders"):
        run(released(linear())[0], search="latent")


def test_zeros_are_a_start_of_a_network():
    recipe = Classifier(
        network={"name": "softmax", "init": "zeros"},
        training={"epochs": 1, "learning_rate": 0.1},
        data=Images(name="digits"),
        seed=1,
    )
    assert all(not parameter.any() for parameter in classifier.untrained(recipe).parameters())


def test_images_of_another_shape_are_the_largest_centred_part():
    whole, part = Images(name="digits"), Images(name="digits", size=(8, 4))
    assert dataset_of(part).shape == (1, 8, 4) and dataset_of(part) is dataset_of(part)
    assert torch.equal(select(part).take()[0], select(whole).take()[0][:, :, :, 2:6])
    halved = select(Images(name="digits", size=(4, 4))).take()[0]
    assert halved.shape[2:] == (4, 4) and abs(float(halved.mean() - select(whole).take()[0].mean())) < 0.02
    with pytest.raises(DataError, match="8 pixels only"):
        dataset_of(Images(name="digits", size=4))


def test_softmax_regression_errs_on_as_many_faces_as_in_the_paper(real_data):
    """7.5 % there (from memory); here on random halves of 7 and 3 pictures of each of 40 people."""
    recipe = classifier_of(config.benchmark("softmax_att_released", "paper"))
    pools = [
        select(Images(name="att_faces", split=split)).take()[0].view(-1, 40, 1, 112, 92) for split in ("train", "test")
    ]
    pictures, errors = torch.cat(pools), []
    people = torch.arange(40)
    for split in range(5):
        order = torch.stack([torch.randperm(10, generator=generator("split", split, person)) for person in people], 1)
        shuffled = pictures[order, people]
        network = classifier.untrained(recipe)
        classifier.train(network, recipe, shuffled[:7].flatten(0, 1), people.repeat(7))
        wrong = network(shuffled[7:].flatten(0, 1)).argmax(1) != people.repeat(3)
        errors.append(float(wrong.double().mean()))
    assert 0.05 <= sum(errors) / 5 <= 0.12, errors
