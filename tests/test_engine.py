"""What takes effect with the next engine: written and tested now, silent until a re-run moves the numbers."""

from __future__ import annotations

import pytest
import torch
from toys import ROOT, question, toy, trial

from leakboard.attack import lbfgs
from leakboard.run import judgement

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


@pytest.mark.parametrize("number", range(4))
def test_a_failed_trial_scores_what_its_noise_row_scores(number, tmp_path, monkeypatch):
    """Matched alike, for every metric and to the bit; at engine 1 the order of the draw decides."""
    asked = question(batch=6)
    rude, noise = toy(tmp_path, "raise RuntimeError('rude')", name="rude"), toy(tmp_path, NOISE)
    before = trial(rude, asked, number).line
    monkeypatch.setattr(judgement, "ENGINE", 2)
    failed, control = trial(rude, asked, number).line, trial(noise, asked, number).line
    assert (failed["status"], control["status"]) == ("failed", "ok")
    assert {name: failed[name] for name in QUALITY} == {name: control[name] for name in QUALITY}
    assert before["mse"] >= failed["mse"], "a matching is never worse than the order of the draw"


def test_images_that_were_not_handed_in_score_their_own_matched_noise(tmp_path, monkeypatch):
    monkeypatch.setattr(judgement, "ENGINE", 2)
    asked = question(batch=4)
    one = trial(toy(tmp_path, "return Reconstruction(torch.zeros(1, *seen.shape[1:]))"), asked).line
    control = trial(toy(tmp_path, NOISE, name="noise"), asked).line
    same = [a == b for a, b in zip(one["mse_each"], control["mse_each"], strict=True)]
    assert sum(same) == 3, "three images are left to noise, each with its own"


def search(monkeypatch, engine: int) -> list[int]:
    """How many problems every look at the search shows, where the only one is lost at its first step."""
    monkeypatch.setattr(lbfgs, "ENGINE", engine)
    shown: list[int] = []

    def objective(points: torch.Tensor, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        far = points.abs().amax(1) > 0
        return torch.where(far, torch.nan, 1.0), torch.ones_like(points)

    lbfgs.minimise(objective, torch.zeros(1, 3), 3, observe=lambda step, points, *rest: shown.append(len(points)))
    return shown


def test_a_search_that_was_thrown_back_is_not_shown(monkeypatch):
    """DLG's trial 7 on ResNet-18 failed on being shown nothing."""
    assert 0 in search(monkeypatch, 1)
    assert 0 not in search(monkeypatch, 2)
