"""GMI: its step, its clip, its choice among restarts, its objective; whose images its priors have seen."""

from __future__ import annotations

import sys

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from toys import ROOT, question, toy

from leakboard import config
from leakboard.attack import contract
from leakboard.config import Images
from leakboard.config.recipes import Degradation, Generator
from leakboard.data import DataError, dataset, select
from leakboard.models.completing import completing
from leakboard.recipes import generator
from leakboard.recipes.restorer import degraded
from leakboard.recipes.trained import Need, refuse
from leakboard.run.attacker import Attacker
from leakboard.run.observation import observe
from leakboard.threat import ReleasedModel
from leakboard.victim.network import network
from leakboard.victim.secrets import victim_slice

GMI = contract.load(ROOT / "baselines" / "gmi" / "attack.py")
MODULE = sys.modules[GMI.__module__]
BOARDS = tuple(config.params("gmi").boards)
SIDE, CLASSES, NOISE = 4, 3, 5
TRAINED = {
    "network": {"name": "cnn3", "width": 4, "weights": "trained"},
    "training": {"images": {"count": 60}, "epochs": 1, "learning_rate": 0.05, "augment": False},
}


class ToyPrior(nn.Module):
    """Draws images by a linear layer, judges them by another, and remembers how far the noise went."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.weight = torch.randn(NOISE, SIDE * SIDE, generator=rng, dtype=torch.double)
        self.verdict = torch.randn(SIDE * SIDE, generator=rng, dtype=torch.double)
        self.farthest: list[float] = []

    def forward(self, noise):
        self.farthest.append(float(noise.detach().abs().max()))
        return (noise.double() @ self.weight).sigmoid().unflatten(1, (1, SIDE, SIDE)).to(noise.dtype)

    def critic(self, images):
        return (images.double().flatten(1) @ self.verdict).to(images.dtype)


def classifier(seed: int = 0, below: float = 0.0) -> nn.Module:
    """A linear classifier; `below` is taken off all its logits."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        linear = nn.Linear(SIDE * SIDE, CLASSES)
    with torch.no_grad():
        linear.bias -= below
    return nn.Sequential(nn.Flatten(), linear)


def released(model: nn.Module, prior: nn.Module | None = None, batch: int = 2, budget: int | None = None):
    shape = (batch, 1, SIDE, SIDE)
    answer = lambda images: model(images).softmax(1)  # noqa: E731
    return ReleasedModel(
        model=model, loss=nn.CrossEntropyLoss(), shape=shape, classes=CLASSES, prior=prior, budget=budget,
        query=answer, access="white", target=1,
    )  # fmt: skip


def searched(seen, seed: int = 3, **settings):
    chosen = {"noise": NOISE, "steps": 20, **settings}
    return GMI(**chosen).reconstruct(seen, torch.Generator().manual_seed(seed))


def test_the_step_is_the_authors_momentum():
    """v' = m v - r g and z' = z - m v + (1 + m) v', for any gradients."""
    rng, rate, momentum = torch.Generator().manual_seed(1), 0.03, 0.9
    x = torch.randn(2, NOISE, generator=rng, dtype=torch.double).requires_grad_()
    z, v = x.detach().clone(), torch.zeros(2, NOISE, dtype=torch.double)
    mover = GMI(rate=rate, momentum=momentum)._mover(x)
    for _ in range(5):
        x.grad = torch.randn(2, NOISE, generator=rng, dtype=torch.double)
        before, v = v, momentum * v - rate * x.grad
        z = z - momentum * before + (1 + momentum) * v
        mover.step()
        torch.testing.assert_close(x.detach(), z, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("clip", "inside"), [(1.0, True), (0.5, True), (0.0, False)])
def test_the_noise_never_leaves_the_clip(clip, inside):
    prior = ToyPrior()
    searched(released(classifier(), prior), clip=clip, rate=1.0)
    assert (max(prior.farthest[1:]) <= clip + 1e-6) == inside, "of the start alone nothing is asked"


def test_of_the_restarts_the_highest_score_is_taken_whatever_its_sign():
    images = torch.arange(6.0).view(3, 2, 1, 1, 1)
    scores = torch.tensor([[-5.0, -1.0], [-2.0, -9.0], [-3.0, -4.0]])
    assert MODULE.best(images, scores).flatten().tolist() == [2.0, 1.0]
    assert torch.equal(MODULE.best(images, scores + 100), MODULE.best(images, scores))


def test_the_choice_among_restarts_is_by_the_target_alone_with_negative_logits_too():
    """Where all logits are lower by a constant, nothing else changes: the same images are handed in."""
    high, low = (searched(released(classifier(below=below), ToyPrior())) for below in (0.0, 64.0))
    assert low.info["restarts"] == 5
    torch.testing.assert_close(low.images, high.images, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("realism", ["critic", "log"])
def test_the_objective_is_equation_4_and_its_gradient_that_of_differences(realism):
    model, prior = classifier().double(), ToyPrior()
    seen, labels = released(model, prior), torch.tensor([1, 1])
    attack = GMI(noise=NOISE, identity=100.0, realism=realism, weight=0.7)
    z = torch.randn(2, NOISE, generator=torch.Generator().manual_seed(2), dtype=torch.double).requires_grad_()

    def objective(at):
        return attack._objective(seen, model, attack._drawn(seen, at), labels)

    images = prior(z)
    wrong = -model(images).log_softmax(1)[:, 1]
    unreal = -prior.critic(images) if realism == "critic" else -prior.critic(images).sigmoid().log()
    torch.testing.assert_close(objective(z), 100 * wrong.sum() + 0.7 * unreal.sum(), rtol=1e-10, atol=1e-10)
    (slope,) = torch.autograd.grad(objective(z), z)
    for place in [(0, 0), (1, 3)]:
        step = torch.zeros_like(z)
        step[place] = 1e-6
        difference = (objective(z + step) - objective(z - step)).detach() / 2e-6
        assert float(slope[place]) == pytest.approx(float(difference), rel=1e-5)


def test_prior_only_asks_another_network_of_the_same_form_and_nothing_of_the_released_one():
    before = torch.random.get_rng_state()
    got = [searched(released(classifier(seed), ToyPrior()), released=False).images for seed in (0, 1)]
    assert torch.equal(*got) and torch.equal(before, torch.random.get_rng_state())
    asked = [searched(released(classifier(seed), ToyPrior())).images for seed in (0, 1)]
    assert not torch.equal(*asked)
    model = classifier()
    drawn = MODULE.untrained(model, torch.Generator().manual_seed(1))
    assert not torch.equal(drawn[1].weight, model[1].weight) and torch.equal(classifier()[1].weight, model[1].weight)


@pytest.mark.parametrize("budget", [2, 4, 11, 60])
@pytest.mark.parametrize("search", ["noise", "pixels"])
def test_a_search_keeps_within_the_budget(budget, search):
    model, passed = classifier(), []
    model.register_forward_hook(lambda module, given, out: passed.append(len(given[0])))
    got = searched(released(model, ToyPrior(), batch=2, budget=budget), search=search, steps=1500)
    assert budget / 2 <= sum(passed) / 2 <= budget and got.images.shape == (2, 1, SIDE, SIDE)
    assert got.images.min() >= 0 and got.images.max() <= 1


def test_a_search_of_pixels_has_no_prior_and_each_trial_of_the_others_has_its_own():
    asked, other = (config.benchmark(name, "quick") for name in BOARDS[:2])
    assert GMI(search="pixels").prior(asked, 0) is None and GMI(search="nothing").prior(asked, 0) is None
    recipes = [GMI().prior(asked, trial) for trial in range(3)]
    assert [recipe.seed for recipe in recipes] == [0, 1, 2] and len({recipe.hash for recipe in recipes}) == 3
    assert recipes[0].images == asked.public_images and GMI().prior(other, 0).hash == recipes[0].hash
    blurred = config.benchmark("cnn_lfw_released_blurred", "quick")
    assert GMI().prior(blurred, 0).completes == blurred.auxiliary is not None
    assert GMI(auxiliary=False).prior(blurred, 0).completes is None


@pytest.mark.parametrize("scale", config.SCALES)
@pytest.mark.parametrize("name", BOARDS)
def test_public_and_private_classes_are_disjoint_on_every_board(name, scale):
    asked = config.benchmark(name, scale)
    private, public = set(asked.data.classes), set(asked.public_images.classes)
    assert private and public and not private & public
    assert asked.threat.sees == "released" and asked.public_images.split == "train"


def test_a_prior_that_has_seen_a_class_that_is_aimed_at_is_refused():
    asked = config.benchmark(BOARDS[0], "quick")
    victims = victim_slice(asked)
    refuse(Need("prior", GMI().prior(asked, 0)), asked, victims)
    for images, said in (
        (Images(split="test", classes=(4, 5)), "images of class 5"),  # not one image in common
        (Images(classes=(6,), start=70), "images of class 6"),  # of the same split, no image in common either
        (Images(count=500), "no image in common"),
    ):
        wrong = asked.model_copy(update={"public": images})
        with pytest.raises(DataError, match=said):
            refuse(Need("prior", GMI().prior(wrong, 0)), wrong, victims)


def test_a_prior_may_follow_the_trial_and_need_not(tmp_path):
    nothing = "return Reconstruction(torch.zeros(seen.shape))"
    method = "def prior(self, {}):\n    from leakboard.config.recipes import Generator\n"
    method += "    return Generator(images=benchmark.public_images, seed={})"
    asked = question("released", {"knows": ("prior",)})
    each = Attacker(toy(tmp_path, nothing, "ReleasedModel", method.format("benchmark, trial", "trial"), "each"))
    one = Attacker(toy(tmp_path, nothing, "ReleasedModel", method.format("benchmark", 7), "one"))
    assert [each.prior(asked, trial).seed for trial in (0, 4)] == [0, 4]
    assert [one.prior(asked, trial).seed for trial in (0, 4)] == [7, 7]


def test_victims_that_are_trained_anew_are_each_trials_own():
    shared, anew = (
        question("released", data={"name": "digits", "split": "train"}, **{**TRAINED, "training": training})
        for training in (TRAINED["training"], {**TRAINED["training"], "anew": True})
    )
    weights = [[next(network(asked, trial).parameters()) for trial in (0, 1, 0)] for asked in (shared, anew)]
    assert torch.equal(weights[0][0], weights[0][1]) and not torch.equal(weights[1][0], weights[1][1])
    assert torch.equal(weights[1][0], weights[1][2]) and shared.hash != anew.hash
    with pytest.raises(ValidationError, match="one evaluator judges all"):
        question("released", evaluator={"network": {"name": "cnn3"}, "training": {**TRAINED["training"], "anew": True}})


def test_the_auxiliary_images_are_the_true_ones_degraded_and_part_of_what_is_known():
    parts = {"data": {"name": "digits", "split": "train"}, "public": {"split": "test", "count": 8}}
    asked = question("released", {"knows": ("auxiliary",)}, auxiliary={"mask": 0.5}, batch=2, **parts)
    got = observe(asked, 1)
    known = got.seen.auxiliary
    assert torch.equal(known[:, :, 2:6, 2:6], torch.zeros(2, 1, 4, 4))
    assert torch.equal(known[:, :, 0], got.hidden.images[:, :, 0]) and not torch.equal(known, got.hidden.images)
    assert observe(question("released", **parts), 1).seen.auxiliary is None
    for knows, more in (((), {"auxiliary": {"mask": 0.5}}), (("auxiliary",), {})):
        with pytest.raises(ValidationError, match="`auxiliary` goes with"):
            question("released", {"knows": knows}, **parts, **more)


def test_the_diversity_term_is_known_and_reaches_the_generator():
    """Images that are the noise times 3, seen as they are: they lie 3 times as far apart, whatever was drawn."""
    one, other = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1)).unbind()
    images = [(3 * noise).view(4, 1, 2, 3) for noise in (one, other)]
    assert float(generator.unlike(lambda x: x.flatten(1), *images, one, other)) == pytest.approx(3.0, rel=1e-5)
    recipe = Generator(images=Images(name="digits"), noise=6, width=4, completes=Degradation(mask=0.5))
    prior, given = generator.untrained(recipe), torch.rand(4, 1, 8, 8)
    apart = generator.unlike(prior.critic.features, prior(one, given), prior(other, given), one, other)
    slopes = torch.autograd.grad(apart, list(prior.drawing.parameters()))
    assert all(torch.isfinite(slope).all() for slope in slopes) and sum(float(s.abs().sum()) for s in slopes) > 0


def test_a_generator_that_completes_draws_what_fits_and_more_than_one():
    images = Images(name="digits", count=200)
    how = Degradation(block=4)
    recipe = Generator(images=images, noise=6, width=8, batch=20, epochs=12, critic_steps=1, rate=1e-3, completes=how)
    true, rng = select(images).take()[0][:50], torch.Generator().manual_seed(1)
    given, noise = degraded(true, how, rng), torch.randn(2, 50, 6, generator=rng)
    prior = generator.untrained(recipe).eval()

    def misfit() -> float:
        return float((degraded(prior(noise[0], given), how, rng) - given).square().mean().detach())

    before = misfit()
    generator.train(prior, recipe, *select(images).take())
    assert misfit() < 0.5 * before and not prior.training
    apart = (prior(noise[0], given) - prior(noise[1], given)).abs().mean()
    assert apart > 1e-4, "what the noise says is not lost"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"layers": "linear", "completes": {"blur": 1.0}}, "goes with `layers: convolutional`"),
        ({"diversity": 1.0}, "go with `completes`"),
        ({"layers": "dense"}, "convolutional"),
    ],
)
def test_a_recipe_of_what_there_is_not_is_refused(more, said):
    with pytest.raises(ValidationError, match=said):
        Generator.model_validate({"images": {"name": "digits"}, **more})


def test_the_linear_generator_draws_and_its_training_repeats():
    recipe = Generator(
        images=Images(name="digits", count=64), layers="linear", form="dcgan", noise=4, epochs=2, batch=16
    )
    drawn = []
    for _ in range(2):
        prior = generator.untrained(recipe)
        generator.train(prior, recipe, *select(recipe.images).take())
        drawn.append(prior(torch.ones(3, 4)))
    assert torch.equal(*drawn) and drawn[0].shape == (3, 1, 8, 8) and 0 <= drawn[0].min() <= drawn[0].max() <= 1
    assert prior.critic(drawn[0]).shape == (3,)


def test_sides_that_cannot_be_completed_are_named():
    with pytest.raises(ValueError, match="25x25 pixels"):
        completing((1, 25, 25), 4, 4, torch.Generator().manual_seed(1))


def test_mnist_at_32_pixels_has_a_black_margin(real_data):
    small, large = (dataset("mnist", "test", size).take([0, 5])[0] for size in (None, 32))
    assert torch.equal(large[:, :, 2:30, 2:30], small) and large.count_nonzero() == small.count_nonzero()
    with pytest.raises(DataError, match="28 and 32 pixels, not 64"):
        dataset("mnist", "test", 64)
