"""Scores against independent oracles, and the honesty rules: one matching, nothing missing averaged away."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from pictures import generator, random_images

from leakboard.score import (
    curve,
    match,
    mse,
    psnr,
    score,
    ssim,
    time_to,
)

torch.set_num_threads(1)


# --- matching ---


@pytest.mark.parametrize("seed", range(8))
def test_match_does_not_depend_on_order(seed):
    true, rng = random_images(6, seed, side=8), generator(100 + seed)
    got = (true + 0.3 * torch.randn(true.shape, generator=rng)).clamp(0, 1)
    order = torch.randperm(6, generator=rng)
    assert torch.equal(order[match(true, got[order])], match(true, got))
    labels, noise = torch.arange(6), random_images(6, 999, side=8)
    first = score(true, labels, got, labels, noise, with_lpips=False)
    again = score(true, labels, got[order], labels[order], noise, with_lpips=False)
    assert again == first


def test_match_is_optimal_and_not_greedy():
    true, got = torch.tensor([[0.0], [0.4]]), torch.tensor([[0.3], [1.0]])
    assert match(true, got).tolist() == [0, 1]
    assert match(torch.tensor([[0.0], [0.4]]), torch.tensor([[0.39], [0.1]])).tolist() == [1, 0]


def test_match_fewer_more_and_none():
    true = random_images(4, 0)
    assert match(true, true[[2, 0]]).tolist() == [1, -1, 0, -1]
    assert match(true[[2, 0]], true).tolist() == [2, 0]
    assert match(true, true[:0]).tolist() == [-1] * 4


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_match_never_takes_an_image_that_is_not_finite(poison):
    true = random_images(3, 0)
    got = true[[2, 1, 0]].clone()
    got[1, 0, 0, 0] = poison
    assert match(true, got).tolist() == [2, -1, 0]
    with pytest.raises(ValueError, match="not finite"):
        match(got, true)


# --- one trial ---


def test_a_failed_trial_scores_the_noise():
    true, noise, labels = random_images(3, 0), random_images(3, 1), torch.tensor([0, 1, 2])
    failed = score(true, labels, true[:0], None, noise, with_lpips=False)
    assert failed.mse == mse(true, noise).tolist()
    assert failed.psnr == psnr(true, noise).tolist()
    assert failed.ssim == ssim(true, noise).tolist()
    assert failed.exact == [False] * 3 and failed.label_accuracy is None
    assert score(true, labels, true[:0], labels[:0], noise, with_lpips=False).label_accuracy == 0.0


@pytest.mark.parametrize("poison", [None, math.nan])
def test_means_run_over_true_images_not_survivors(poison):
    """One perfect image of four, the others not handed in or not finite: the share is a quarter, never one."""
    true, noise = random_images(4, 0), random_images(4, 1)
    got = true[2:3] if poison is None else torch.where(torch.arange(4).view(4, 1, 1, 1) == 2, true, poison)
    scores = score(true, torch.arange(4), got, torch.full((len(got),), 2), noise, with_lpips=False)
    summary = scores.summary()
    assert summary["exact"] == summary["above20"] == summary["above30"] == summary["success_1e-4"] == 0.25
    assert summary["label_accuracy"] == 0.25
    assert summary["mse"] == pytest.approx(float(mse(true, noise)[[0, 1, 3]].sum() / 4))
    assert summary["psnr"] == pytest.approx(float((100 + psnr(true, noise)[[0, 1, 3]].sum()) / 4))


def test_summary_thresholds():
    true = torch.full((4, 1, 8, 8), 0.5)
    offsets = torch.tensor([0.0005, 0.005, 0.02, 0.2])
    summary = score(true, torch.zeros(4), true + offsets.view(4, 1, 1, 1), None, true, with_lpips=False).summary()
    assert [summary[name] for name in ("exact", "above20", "above30")] == [0.25, 0.75, 0.75]
    assert [summary[f"success_{limit}"] for limit in ("1e-2", "1e-3", "1e-4")] == [0.75, 0.75, 0.5]
    assert summary["lpips"] is None and summary["label_accuracy"] is None


def test_labels_follow_the_images():
    true, labels = random_images(3, 0), torch.tensor([5, 5, 7])
    order = torch.tensor([2, 0, 1])
    assert score(true, labels, true[order], labels[order], true, with_lpips=False).label_accuracy == 1.0
    assert score(true, labels, true[order], labels, true, with_lpips=False).label_accuracy == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("found", "accuracy"), [([7, 5, 5], 1.0), ([5, 7, 7], 2 / 3), ([7, 7, 7], 1 / 3), ([5], 1 / 3), ([], 0.0)]
)
def test_labels_alone_are_scored_as_a_multiset(found, accuracy):
    true, labels = random_images(3, 0), torch.tensor([5, 5, 7])
    scores = score(true, labels, true[:0], torch.tensor(found), random_images(3, 1), with_lpips=False)
    assert scores.label_accuracy == pytest.approx(accuracy)


def test_score_leaves_its_arguments_alone_and_skips_ssim_of_tiny_images():
    true, noise = random_images(2, 0, side=4), random_images(2, 1, side=4)
    copies = true.clone(), noise.clone()
    scores = score(true, torch.zeros(2), true[:1], None, noise, with_lpips=True)
    assert scores.ssim is None and scores.lpips is None and scores.summary()["ssim"] is None
    assert torch.equal(true, copies[0]) and torch.equal(noise, copies[1])


def test_score_names_what_does_not_fit():
    true, labels = random_images(2, 0), torch.zeros(2)
    with pytest.raises(ValueError, match="belong together"):
        score(true, labels, true, None, true[:1], with_lpips=False)
    with pytest.raises(ValueError, match="labels for"):
        score(true, labels, true, labels[:1], true, with_lpips=False)
    with pytest.raises(ValueError, match="labels for"):
        score(true, labels, true[:0], torch.zeros(3), true, with_lpips=False)
    with pytest.raises(ValueError, match="noise"):
        score(true, labels, true, None, true * math.nan, with_lpips=False)


# --- curves and class-level attacks ---


def snapshot(step, images):
    return SimpleNamespace(step=step, evaluations=20 * step, seconds=0.5 * step, loss=1.0 / step, images=images)


def test_curve_and_time_to_quality():
    true, noise = random_images(2, 0), random_images(2, 1)
    got = [true * math.nan, true[:1], (true + 0.1).flip(0), true]
    rows = curve([snapshot(2**step, images) for step, images in enumerate(got)], true, noise)
    assert list(rows[0]) == ["step", "evaluations", "seconds", "loss", "mse", "psnr"]
    expected = [float(mse(true, noise).mean()), float(mse(true, noise)[1]) / 2, 0.01, 0.0]
    assert [row["mse"] for row in rows] == pytest.approx(expected, rel=1e-5)
    assert time_to(rows, 19.9) == (0.5 * 2, 20 * 2)  # one exact image and one of noise: (100 + 8) / 2 dB
    assert time_to(rows, 99.0) == (0.5 * 8, 20 * 8)
    assert time_to(rows[:1]) == (math.inf, math.inf)
