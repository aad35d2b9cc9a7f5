"""How a malicious server sets the layer that sees the image, by definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from leakboard.attack.first_layer import biases_by_images, biases_by_law, first_linear, robust_soliton, trap_weights
from leakboard.models import build
from leakboard.rng import generator
from leakboard.score.images import score

SIDE = (3, 6, 6)


def test_trap_weights_have_signs_of_their_own_or_are_mirrored():
    rng = generator("trap")
    free = trap_weights(torch.Size((400, 60)), 0.5, 0.25, False, rng)
    sizes = [float(free[side].abs().mean()) for side in (free < 0, free > 0)]
    assert sizes[1] / sizes[0] == pytest.approx(0.25, rel=0.05)
    counts = (free < 0).double().sum(1)
    assert float(counts.mean()) == pytest.approx(30, abs=1) and float(counts.std()) == pytest.approx(
        60**0.5 / 2, rel=0.15
    )
    mirrored = trap_weights(torch.Size((20, 60)), 0.5, 0.25, True, rng)
    torch.testing.assert_close(mirrored.clamp_min(0).sum(1), -0.25 * mirrored.clamp_max(0).sum(1))


def test_the_robust_soliton_law_is_the_ideal_one_with_a_spike():
    """At 64 images, c 0.05 and delta 0.4: R = 2.03; degrees below 31 gain R / 64 i, degree 31 R ln(R / 0.4) / 64."""
    law = robust_soliton(64, 0.05, 0.4).numpy()
    ripple = 0.05 * math.log(64 / 0.4) * 8
    assert math.floor(64 / ripple) == 31
    plain = np.array([1 / 64, *(1 / (i * (i - 1)) for i in range(2, 65))])
    more = np.array([ripple / (64 * i) if i < 31 else 0.0 for i in range(1, 65)])
    more[30] = ripple * math.log(ripple / 0.4) / 64
    np.testing.assert_allclose(law, (plain + more) / (plain + more).sum(), rtol=1e-12)
    assert law.argmax() == 1 and law[30] > 5 * law[29]


def test_biases_from_images_leave_open_exactly_the_degree():
    images, weight = torch.rand(20, 12, generator=generator("x")), torch.randn(50, 12, generator=generator("w"))
    degrees = torch.arange(50) % 20 + 1
    bias = biases_by_images(weight, degrees, images)
    assert torch.equal((images.double() @ weight.double().T + bias > 0).sum(0), degrees)


def test_biases_from_the_law_leave_open_the_degree_of_uniform_pixels():
    images, weight = torch.rand(4000, 300, generator=generator("x")), torch.randn(200, 300, generator=generator("w"))
    degrees = torch.tensor([1, 8, 32, 64]).repeat(50)
    bias = biases_by_law(weight, degrees, 64)
    share = (images.double() @ weight.double().T + bias > 0).double().mean(0).view(50, 4).mean(0)
    torch.testing.assert_close(share, torch.tensor([1, 8, 32, 63.5]).double() / 64, atol=0.005, rtol=0)


def test_a_first_layer_that_is_not_linear_or_has_no_bias_is_refused():
    with pytest.raises(ValueError, match="Conv2d"):
        first_linear(build("cnn", SIDE, 10, 4))
    with pytest.raises(ValueError, match="no bias"):
        first_linear(nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False)))


def test_false_images_are_those_handed_in_that_equal_none_of_the_batch():
    true, noise = torch.rand(4, 1, 8, 8, generator=generator("x")), torch.rand(4, 1, 8, 8, generator=generator("n"))
    got = torch.stack([true[2], true[0], true[1] + 0.1])
    for handed_in, wanted in ((got, 1 / 4), (got[:2], 0.0), (got[:0], 0.0), (noise, 1.0)):
        scores = score(true, torch.arange(4), handed_in, None, noise, False)
        assert scores.summary()["false_images"] == wanted
