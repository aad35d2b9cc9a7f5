"""The judge of what shall show a class: each number by its definition, and that junk is named after no class."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from toys import question, toy, trial

from leakboard import metrics
from leakboard.config import Images
from leakboard.config.recipes import Classifier
from leakboard.data import DataError, select
from leakboard.recipes.junk import junk
from leakboard.recipes.trained import lacking, trained_evaluator
from leakboard.rng import generator
from leakboard.run import judgement
from leakboard.score import ClassTruth, class_scores, ssim
from leakboard.victim.secrets import class_images, class_means, victim_slice

HIGH = {"name": "digits", "split": "train", "classes": "5-9"}
JUDGE = {"images": {"split": "test", "classes": "5-9"}, "epochs": 60, "learning_rate": 0.05, "augment": False}
SLICE = Images(**HIGH)


class Brightness(nn.Module):
    """Class 1 for bright images, 0 for dark ones, 2, which is no class, for grey; dropout shows an eval mode."""

    def __init__(self):
        super().__init__()
        self.dropout, self.last = nn.Dropout(0.99), nn.Linear(2, 3, bias=False)
        self.last.weight.data = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.3]])

    def forward(self, x):
        mean = self.dropout(x.mean((1, 2, 3)))
        return self.last(torch.stack([mean - 0.5, torch.ones_like(mean)], 1))


def flat(*levels: float, side: int = 4) -> torch.Tensor:
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 1, side, side)


def truth(**more) -> ClassTruth:
    given = {"members": flat(0.8, 0.8), "public": flat(0.1), "evaluator": Brightness(), "classes": 2}
    return ClassTruth(1, **{**given, **more})


def test_every_number_is_what_its_name_says():
    images = flat(0.9, 0.9, 0.1, 0.6)
    asked = truth(released=Brightness())
    got = class_scores(images, asked)
    assert asked.evaluator.training and asked.evaluator.dropout.training
    assert got["evaluator_accuracy"] == pytest.approx(2 / 4), "the grey one is rejected"
    assert got["lineup_accuracy"] == pytest.approx(3 / 4), "made to name one of two, the evaluator names the brighter"
    assert got["evaluator_top5"] == 1.0, "there are fewer than five"
    logits = torch.tensor([[0.5 - x, x - 0.5, 0.3] for x in (0.9, 0.9, 0.1, 0.6)])
    assert got["evaluator_confidence"] == pytest.approx(float(logits.softmax(1)[:, 1].mean()), rel=1e-5)
    assert got["target_confidence"] == got["evaluator_confidence"], "the same network twice"
    assert got["nearest_victim_mse"] == pytest.approx((0.01 + 0.01 + 0.49 + 0.04) / 4)
    assert got["nearest_public_mse"] == pytest.approx((0.64 + 0.64 + 0.25) / 4)
    features = [torch.tensor([x - 0.5, 1.0]) for x in (0.9, 0.9, 0.1, 0.6)]
    away = [1 - float(torch.cosine_similarity(one, torch.tensor([0.3, 1.0]), dim=0)) for one in features]
    assert got["nearest_victim_feature"] == pytest.approx(sum(away) / 4, rel=1e-4)
    pairs = [0.0, 0.8, 0.3, 0.8, 0.3, 0.5]
    assert got["diversity"] == pytest.approx(sum(pairs) / 6)
    assert got["class_mean_ssim"] is None, "nobody asked"


def test_an_image_is_ranked_among_the_means_of_all_classes():
    rng = torch.Generator().manual_seed(0)
    means = {label: torch.rand(1, 12, 12, generator=rng) for label in (3, 1, 7)}
    near = (means[1] + 0.1 * torch.rand(1, 12, 12, generator=rng))[None]
    got = class_scores(torch.cat([near, means[7][None]]), truth(members=near, public=None, means=means))
    assert got["class_mean_rank"] >= (1 + 2) / 2 and got["nearest_public_mse"] is got["nearest_public_feature"] is None
    expected = (ssim(means[1][None], near) + ssim(means[1][None], means[7][None])) / 2
    assert got["class_mean_ssim"] == pytest.approx(float(expected))
    assert class_scores(near, truth(members=near, public=None, means=means))["class_mean_rank"] == 1


def test_without_images_there_is_no_success():
    got = class_scores(torch.empty(0, 1, 4, 4), truth(public=None, released=Brightness()))
    zero = {"evaluator_accuracy", "evaluator_top5", "lineup_accuracy", "evaluator_confidence", "target_confidence"}
    assert {name for name, value in got.items() if value == 0.0} == zero
    assert {value for name, value in got.items() if name not in zero} == {None}
    with pytest.raises(ValueError, match="finite"):
        class_scores(torch.full((1, 1, 4, 4), math.nan), truth())


def test_every_number_has_a_name_that_boards_know():
    wanted = {name for name, metric in metrics.METRICS.items() if metric.truth == "classes"}
    assert set(class_scores(flat(0.5), truth())) == wanted


# ---------------------------------------------------------------------------------------------------------------------
# Evaluators: apart from the victims, proof against junk.


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    for name in ("benchmarks", "baselines"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def released(reject=None, training=JUDGE, width=64, **more):
    parts = {
        "data": HIGH,
        "public": {"classes": "0-4", "count": 60},
        "network": {"name": "mlp", "width": 32, "weights": "trained"},
        "training": {"images": {"classes": "5-9"}, "epochs": 10, "learning_rate": 0.1, "augment": False},
        "evaluator": {"network": {"name": "mlp", "width": width}, "training": training, "reject": reject},
        "metrics": ("evaluator_accuracy", "class_mean_ssim"),
    }
    return question("released", {"access": "white"}, **(parts | more))


def test_an_evaluator_that_saw_a_victim_is_refused_be_it_as_what_it_rejects(elsewhere):
    seen, rejected = {**JUDGE, "images": {"start": 100}}, {"images": {"count": 9, "start": 5}}
    for asked in (released(training=seen), released(rejected)):
        with pytest.raises(DataError, match=r"victims of toy and the training images of the evaluator .* share"):
            lacking(asked, victim_slice(asked))
    assert len(lacking(released(), victim_slice(released()))) == 2, "the victim itself is what gives them away"


def test_a_reject_class_takes_junk_and_public_digits_and_leaves_the_digits(elsewhere):
    asked = released({"noise": 200, "images": {"split": "test", "classes": "0-4"}})
    plain = trained_evaluator(released(), victim_slice(asked)).model
    judge = trained_evaluator(asked, victim_slice(asked)).model
    images, labels = select(SLICE).take()
    others, _ = select(Images(name="digits", classes=(0, 1, 2, 3, 4))).take()
    blotches = junk(300, (1, 8, 8), generator("another draw", 1))
    assert judge(images).shape[1] == 11 and plain(images).shape[1] == 10
    assert (judge(images).argmax(1) == labels).double().mean() > 0.85
    for nothing in (blotches, others):
        assert (judge(nothing).argmax(1) == 10).double().mean() > 0.85
    assert plain(blotches).softmax(1).amax(1).double().mean() > 0.5, "a plain classifier is sure of a digit in them"


def test_what_is_rejected_is_part_of_the_recipe():
    plain = {"network": {"name": "mlp"}, "training": JUDGE, "data": SLICE, "seed": 1}
    rejects = [None, {"noise": 5}, {"noise": 6}, {"noise": 5, "images": {"split": "test"}}]
    assert len({Classifier(**plain, reject=reject).hash for reject in rejects}) == 4
    with pytest.raises(ValueError, match="nothing is rejected"):
        Classifier(**plain, reject={})


def test_junk_is_of_every_grain_and_repeats_itself():
    fields = junk(200, (1, 16, 12), generator("junk", 3))
    assert torch.equal(fields, junk(200, (1, 16, 12), generator("junk", 3))) and fields.min() >= 0 and fields.max() <= 1
    steps = (fields[:, :, 1:] - fields[:, :, :-1]).abs().mean((1, 2, 3)) / (fields.flatten(1).std(1) + 1e-3)
    assert steps.min() < 0.2 < 0.8 < steps.max(), "smooth ones and white noise"


def test_another_evaluator_changes_what_it_says_and_no_other_column(elsewhere, monkeypatch):
    body = "return Reconstruction(seen.public.images[:1])"
    path, asked = toy(elsewhere, body, "ReleasedModel"), released({"noise": 50})
    own = {"evaluator_accuracy", "evaluator_top5", "lineup_accuracy", "evaluator_confidence"}
    own |= {"nearest_victim_feature", "nearest_public_feature"}
    right = trial(path, asked).line

    def wrong(benchmark, victims, true=judgement.trained_evaluator):
        found = true(benchmark, victims)
        found.model[-1].weight.data.neg_()
        found.model[1].weight.data.neg_()
        return found

    monkeypatch.setattr(judgement, "trained_evaluator", wrong)
    other = trial(path, asked).line
    moved = {name for name, metric in metrics.METRICS.items() if right.get(name) != other.get(name)}
    moved -= {name for name, metric in metrics.METRICS.items() if metric.truth == "cost"}
    assert moved and moved <= own, moved


def test_a_class_is_judged_by_all_of_its_images_however_few_are_handed_in(elsewhere):
    asked = released(batch=1)
    images, labels = select(SLICE).take()
    mine = class_images(asked, 6)
    assert torch.equal(mine, images[labels == 6])
    assert torch.allclose(class_means(asked)[6], mine.mean(0)) and list(class_means(asked)) == [5, 6, 7, 8, 9]
    copied = elsewhere / "last.pt"
    torch.save(mine[-1:], copied)
    line = trial(toy(elsewhere, f"return Reconstruction(torch.load({str(copied)!r}))", "ReleasedModel"), asked, 1).line
    assert line["nearest_victim_mse"] == 0 and line["nearest_victim_feature"] < 1e-9 and line["class_mean_rank"] >= 1
