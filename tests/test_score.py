"""Scores against independent oracles, and the honesty rules: one matching, nothing missing averaged away."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from leakboard.score import (
    class_scores,
    curve,
    legacy_global_ssim,
    lpips_squeeze,
    match,
    maximum_error,
    mse,
    psnr,
    score,
    ssim,
    ssim_window,
    time_to,
)

torch.set_num_threads(1)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def random_images(count, seed, channels=3, side=16):
    return torch.rand(count, channels, side, side, generator=generator(seed))


def astronaut_crops(count, side, seed):
    """Real crops and noisy copies of them, float32. -> two (B, 3, side, side)"""
    from skimage.data import astronaut

    photo = torch.from_numpy(astronaut()).permute(2, 0, 1).float() / 255
    corners = torch.randint(0, 512 - side, (count, 2), generator=generator(seed)).tolist()
    true = torch.stack([photo[:, top : top + side, left : left + side] for top, left in corners])
    noise = 0.1 * torch.randn(true.shape, generator=generator(seed + 1))
    return true, (true + noise).clamp(0, 1)


def pairs_of_images(kind, side):
    if kind == "real":
        return astronaut_crops(4, side, seed=3)
    channels = 1 if kind == "grey" else 3
    return random_images(4, 1, channels, side), random_images(4, 2, channels, side)


# --- metrics ---


@pytest.mark.parametrize("kind", ["random", "grey", "real"])
@pytest.mark.parametrize("side", [7, 8, 10, 11, 16, 32, 64])
def test_ssim_equals_scikit_image(kind, side):
    from skimage.metrics import structural_similarity

    true, got = pairs_of_images(kind, side)
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    options = gaussian if ssim_window(true.shape) == "gauss11" else {}
    expected = [
        structural_similarity(x.numpy(), y.numpy(), data_range=1, channel_axis=0, **options)
        for x, y in zip(true, got, strict=True)
    ]
    assert np.allclose(ssim(true, got).numpy(), expected, rtol=0, atol=1e-5)


def test_ssim_of_images_that_are_not_square():
    true, got = random_images(2, 0, side=32), random_images(2, 1, side=32)
    turned = ssim(true[..., :20].transpose(2, 3), got[..., :20].transpose(2, 3))
    assert torch.allclose(ssim(true[..., :20], got[..., :20]), turned)


def test_ssim_names_its_window():
    assert ssim_window((2, 3, 11, 64)) == "gauss11"
    assert ssim_window((2, 3, 10, 64)) == "uniform7"
    with pytest.raises(ValueError, match="at least 7"):
        ssim_window((2, 3, 6, 64))


@pytest.mark.parametrize("metric", [ssim, legacy_global_ssim])
def test_identical_images_have_similarity_one(metric):
    true = random_images(3, 0)
    assert torch.allclose(metric(true, true), torch.ones(3).double())


def test_global_ssim_flatters_a_blurred_image():
    true, _ = astronaut_crops(4, 64, seed=0)
    blurred = nn.functional.avg_pool2d(true, 9, stride=1, padding=4, count_include_pad=False)
    assert (legacy_global_ssim(true, blurred) > ssim(true, blurred) + 0.1).all()


@pytest.mark.parametrize("kind", ["random", "grey", "real"])
def test_errors_equal_scikit_image(kind):
    from skimage.metrics import mean_squared_error, peak_signal_noise_ratio

    true, got = pairs_of_images(kind, 32)
    couples = [(x.numpy(), y.numpy()) for x, y in zip(true.double(), got.double(), strict=True)]
    assert np.allclose(mse(true, got), [mean_squared_error(x, y) for x, y in couples], rtol=1e-12)
    assert np.allclose(psnr(true, got), [peak_signal_noise_ratio(x, y, data_range=1) for x, y in couples], rtol=1e-12)
    assert np.allclose(maximum_error(true, got), [np.abs(x - y).max() for x, y in couples], rtol=1e-12)


def test_psnr_is_capped_and_per_image():
    true = random_images(2, 0)
    got = torch.stack([true[0], true[1] + 0.1])
    assert psnr(true, got).tolist() == pytest.approx([100.0, 20.0], abs=1e-4)
    assert psnr(true, true + 1e-7).max() == 100.0


@pytest.mark.parametrize("metric", [mse, psnr, ssim, maximum_error, lpips_squeeze])
def test_metrics_refuse_to_broadcast(metric):
    with pytest.raises(ValueError, match="equal shapes"):
        metric(random_images(2, 0), random_images(1, 0))


# --- LPIPS ---


def test_lpips_example_pair(real_data):
    pytest.importorskip("lpips")
    from skimage.io import imread

    def example(name):
        return torch.from_numpy(imread(real_data / "weights" / "lpips" / name)[..., :3] / 255.0).permute(2, 0, 1)[None]

    before = torch.get_rng_state()
    reference = example("ex_ref.png")
    got = [float(lpips_squeeze(reference, example(name))) for name in ("ex_p0.png", "ex_p1.png")]
    assert got == pytest.approx([0.711, 0.148], abs=1e-3)
    assert torch.equal(torch.get_rng_state(), before)


def test_lpips_takes_grey_and_batches(real_data):
    pytest.importorskip("lpips")
    true, got = random_images(35, 0, channels=1, side=17), random_images(35, 1, channels=1, side=17)
    distance = lpips_squeeze(true, got)
    assert distance.shape == (35,)
    assert torch.allclose(distance[:2], lpips_squeeze(true[:2].repeat(1, 3, 1, 1), got[:2].repeat(1, 3, 1, 1)))
    assert torch.equal(lpips_squeeze(true[:1], true[:1]), torch.zeros(1).double())


def test_lpips_is_not_available_for_small_or_odd_images():
    assert lpips_squeeze(random_images(1, 0, side=16), random_images(1, 1, side=16)) is None
    assert lpips_squeeze(random_images(1, 0, channels=2, side=32), random_images(1, 1, channels=2, side=32)) is None


def test_lpips_without_weights_is_not_available(monkeypatch):
    from leakboard.data import DataError, weights

    def absent(name):
        raise DataError(f"{name} is not here")

    monkeypatch.setattr(weights, "weights_file", absent)
    true = random_images(2, 0, side=32)
    assert lpips_squeeze(true, true) is None
    scores = score(true, torch.zeros(2), true, None, true, with_lpips=True)
    assert scores.lpips is None and scores.summary()["lpips"] is None


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


class Brightness(nn.Module):
    """Class 1 for bright images, 0 for dark ones; dropout shows whether it was put in eval mode."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.99)

    def forward(self, x):
        mean = self.dropout(x.mean((1, 2, 3)))
        return torch.stack([0.5 - mean, mean - 0.5], 1)


def test_class_scores():
    images = torch.tensor([0.9, 0.9, 0.1]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    victims, public = torch.full((2, 1, 4, 4), 0.8), torch.full((1, 1, 4, 4), 0.1)
    evaluator = Brightness()
    got = class_scores(images, evaluator, 1, victims, public)
    assert evaluator.training and evaluator.dropout.training
    assert got["evaluator_accuracy"] == pytest.approx(2 / 3)
    assert got["nearest_victim_mse"] == pytest.approx((0.01 + 0.01 + 0.49) / 3)
    assert got["nearest_public_mse"] == pytest.approx((0.64 + 0.64) / 3)
    assert got["diversity"] == pytest.approx(0.8 * 2 / 3)
    assert class_scores(images, evaluator, torch.tensor([1, 1, 0]), victims, None)["evaluator_accuracy"] == 1.0


def test_class_scores_without_images_is_not_a_success():
    got = class_scores(torch.empty(0, 1, 4, 4), Brightness(), 1, torch.rand(2, 1, 4, 4), None)
    assert got == {
        "evaluator_accuracy": 0.0,
        "nearest_victim_mse": None,
        "nearest_public_mse": None,
        "diversity": None,
    }
    with pytest.raises(ValueError, match="finite"):
        class_scores(torch.full((1, 1, 4, 4), math.nan), Brightness(), 1, torch.rand(2, 1, 4, 4), None)
