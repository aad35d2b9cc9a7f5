"""Metrics of image pairs against independent oracles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pictures import astronaut_crops, pairs_of_images, random_images
from torch import nn

from leakboard.score import (
    legacy_global_ssim,
    lpips_squeeze,
    maximum_error,
    mse,
    psnr,
    score,
    ssim,
    ssim_window,
)

torch.set_num_threads(1)


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
