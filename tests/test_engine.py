"""What engine 2 changed, and that a paper whose lines are older keeps its own engine until it has run again."""

from __future__ import annotations

import pytest
import torch
from toys import ROOT, question, toy, trial

import leakboard
from leakboard.attack import lbfgs
from leakboard.attack.matching import Matching, squared_distance
from leakboard.record.trial_lines import present_keys
from leakboard.threat import Gradient

NOISE = "return Reconstruction(torch.rand(seen.shape, generator=rng))"
QUALITY = (
    "mse",
    "psnr",
    "ssim",
    "exact",
    "above20",
    "above30",
    "success_1e-2",
    "oracle_cosine",
    "mse_each",
    "psnr_each",
)


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_papers_that_wait_are_papers_of_an_older_engine():
    assert set(leakboard.BEHIND) <= set(leakboard.config.paper_names())
    assert all(engine < leakboard.ENGINE for engine in leakboard.BEHIND.values())


def test_the_engine_of_a_paper_is_part_of_its_lines(monkeypatch):
    monkeypatch.setattr(leakboard, "BEHIND", {"dlg": 1})
    asked = leakboard.config.benchmark("lenet_mnist_gradient", "quick")
    keys = {paper: present_keys(paper, asked) for paper in ("dlg", "idlg")}
    assert keys["dlg"]["joint"][-1] == 1 and keys["idlg"]["image"][-1] == leakboard.ENGINE


@pytest.mark.parametrize("number", range(4))
def test_a_failed_trial_scores_what_its_noise_row_scores(number, tmp_path):
    """Matched alike, for every metric and to the bit."""
    asked = question(batch=6)
    rude, noise = toy(tmp_path, "raise RuntimeError('rude')", name="rude"), toy(tmp_path, NOISE)
    failed, control = trial(rude, asked, number).line, trial(noise, asked, number).line
    assert (failed["status"], control["status"]) == ("failed", "ok")
    assert {name: failed[name] for name in QUALITY} == {name: control[name] for name in QUALITY}


def test_images_that_were_not_handed_in_score_their_own_matched_noise(tmp_path):
    asked = question(batch=4)
    one = trial(toy(tmp_path, "return Reconstruction(torch.zeros(1, *seen.shape[1:]))"), asked).line
    control = trial(toy(tmp_path, NOISE, name="noise"), asked).line
    same = [a == b for a, b in zip(one["mse_each"], control["mse_each"], strict=True)]
    assert sum(same) == 3, "three images are left to noise, each with its own"


STEPS = """
images = torch.rand(seen.shape, generator=rng)
for step in range(1, 7):
    seen.spend()
    images = images / 2
    seen.snapshot(step, images, 1 / step)
return Reconstruction(images, info={"loss": 0.125})
"""


def test_a_curve_ends_where_its_board_does(tmp_path):
    outcome = trial(toy(tmp_path, STEPS), question(batch=2))
    steps, last = [row["step"] for row in outcome.curve], outcome.curve[-1]
    assert steps == [1, 2, 4, 5], "the last one is what was handed in, counted on"
    assert (last["evaluations"], last["loss"]) == (6, 0.125)
    assert last["seconds"] == outcome.line["seconds"] and last["mse"] == pytest.approx(outcome.line["mse"])


def test_what_a_snapshot_has_shown_is_not_shown_again(tmp_path):
    body = STEPS.replace("range(1, 7)", "range(1, 5)")
    assert [row["step"] for row in trial(toy(tmp_path, body), question(batch=2)).curve] == [1, 2, 4]


def test_at_engine_1_a_curve_ends_with_the_last_snapshot(tmp_path, monkeypatch):
    monkeypatch.setattr(leakboard, "BEHIND", {"toy": 1})
    outcome = trial(toy(tmp_path, STEPS), question(batch=2))
    assert [row["step"] for row in outcome.curve] == [1, 2, 4] and outcome.line["engine"] == 1


PASSES = "seen.model(torch.zeros(9, *seen.shape[1:]))\nreturn Reconstruction(torch.zeros(seen.shape))"


@pytest.mark.parametrize(("engine", "charged"), [(1, 1), (2, 3)])
def test_a_pass_is_charged_by_the_image(engine, charged, tmp_path, monkeypatch):
    """Nine images are three batches of four, whoever stacks them into one pass; engine 1 took any pass for one."""
    monkeypatch.setattr(leakboard, "BEHIND", {"toy": engine})
    assert trial(toy(tmp_path, PASSES), question(batch=4)).line["evaluations"] == charged


def lost_at_once(points: torch.Tensor, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.where(points.abs().amax(1) > 0, torch.nan, 1.0), torch.ones_like(points)


def test_a_search_that_was_thrown_back_is_not_shown():
    """DLG's trial 7 on ResNet-18 failed on being shown nothing."""
    shown: list[int] = []
    lbfgs.minimise(lost_at_once, torch.zeros(1, 3), 3, observe=lambda step, points, *rest: shown.append(len(points)))
    assert 0 not in shown


def bowl(size: float):
    def objective(points: torch.Tensor, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        away = points - torch.arange(1.0, 4.0)
        return size * away.square().sum(1), 2 * size * away

    return objective


@pytest.mark.parametrize("size", [1e-6, 1e-9, 1.0])
def test_a_search_in_its_own_unit_takes_the_same_way_at_any_size(size):
    """As a squared distance to the small gradient of a trained network: without a unit the search ends at once."""
    unit = torch.tensor([size])
    plain = lbfgs.minimise(bowl(1.0), torch.zeros(1, 3), 20)
    found = lbfgs.minimise(bowl(size), torch.zeros(1, 3), 20, scale=unit)
    torch.testing.assert_close(found.point, plain.point, rtol=1e-4, atol=1e-4)
    assert found.steps.tolist() == plain.steps.tolist()
    torch.testing.assert_close(found.value, bowl(size)(found.point, torch.arange(1))[0])
    if size < 1e-8:
        assert lbfgs.minimise(bowl(size), torch.zeros(1, 3), 20).steps.tolist() == [1]


def test_the_last_point_of_a_search_is_not_its_best():
    """A step that leads uphill is the last one made, and not the best point met."""

    def objective(points: torch.Tensor, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return points.abs().sum(1), points.sign()

    found = lbfgs.minimise(objective, torch.full((1, 1), 0.4), 1)
    assert found.point.tolist() == [[pytest.approx(0.4)]] and found.last.tolist() == [[pytest.approx(-0.6)]]


def test_matching_tells_the_size_of_what_it_matches():
    model = torch.nn.Linear(4, 3)
    gradient = tuple(torch.full_like(p, 0.5) for p in model.parameters())
    shared = {"model": model, "loss": torch.nn.CrossEntropyLoss(), "shape": (1, 1, 2, 2), "classes": 3}
    assert Matching(Gradient(**shared, gradient=gradient), squared_distance).square.tolist() == [0.25 * 15]
    none = tuple(torch.zeros_like(p) for p in model.parameters())
    assert Matching(Gradient(**shared, gradient=none), squared_distance).square.item() > 0, "it can be divided by"
