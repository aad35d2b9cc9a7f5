"""How close an image is to the truth: one number per image, all on [0, 1] pixels (data range 1).

Every metric takes two stacks of the same shape (B, C, H, W), computes in float64 on their device and leaves the batch
axis alone: averaging is the caller's business. Unequal shapes raise ValueError.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

PSNR_CAP = 100.0  # dB; what identical images score
LPIPS_SIDE = 17  # pixels; SqueezeNet's last pooling has nothing to pool below
LUMINANCE, CONTRAST = 0.01**2, 0.03**2  # the two stabilising constants of SSIM at data range 1


def _doubles(true: Tensor, got: Tensor) -> tuple[Tensor, Tensor]:
    if true.shape != got.shape:
        raise ValueError(f"true is {tuple(true.shape)} and got is {tuple(got.shape)}; a metric compares equal shapes")
    return true.detach().double(), got.detach().to(true.device).double()


def mse(true: Tensor, got: Tensor) -> Tensor:
    """Mean squared error of each image. (B, ...) -> (B,)"""
    true, got = _doubles(true, got)
    return (true - got).square().flatten(1).mean(1)


def psnr(true: Tensor, got: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, capped at `PSNR_CAP`. (B, ...) -> (B,)"""
    return (-10 * mse(true, got).log10()).clamp(max=PSNR_CAP)


def maximum_error(true: Tensor, got: Tensor) -> Tensor:
    """Largest absolute error over all pixels of each image. (B, ...) -> (B,)"""
    true, got = _doubles(true, got)
    return (true - got).abs().flatten(1).amax(1)


def ssim_window(shape: tuple[int, ...]) -> Literal["gauss11", "uniform7"]:
    """Which window `ssim` slides over images of this shape (..., H, W). ValueError when a side is below 7 pixels."""
    side = min(shape[-2:])
    if side < 7:
        raise ValueError(f"SSIM needs sides of at least 7 pixels, these images are {tuple(shape[-2:])}")
    return "gauss11" if side >= 11 else "uniform7"


def ssim(true: Tensor, got: Tensor) -> Tensor:
    """Structural similarity of each image (Wang et al. 2004), mean over channels. (B, C, H, W) -> (B,)

    Sides of 11 pixels and more: an 11x11 Gaussian window of sigma 1.5, population covariance. Smaller ones:
    scikit-image's default, a 7x7 uniform window with sample covariance. Only places where the whole window fits count:
    nothing is padded.
    """
    true, got = _doubles(true, got)
    if ssim_window(tuple(true.shape)) == "gauss11":
        offsets = torch.arange(-5, 6, dtype=torch.float64, device=true.device)
        window, correction = torch.exp(-offsets.square() / (2 * 1.5**2)), 1.0
    else:
        window, correction = torch.ones(7, dtype=torch.float64, device=true.device), 49 / 48
    window = window / window.sum()
    rows, columns = (_sliding(window, side) for side in true.shape[-2:])
    moments = torch.stack([true, got, true * true, got * got, true * got])
    return _similarity(rows @ moments @ columns.T, correction).mean((1, 2, 3))


def _sliding(window: Tensor, side: int) -> Tensor:
    """The weighted mean under a window (K,) at each of its places along a side, as a matrix (side - K + 1, side)."""
    return torch.eye(side, dtype=window.dtype, device=window.device).unfold(0, len(window), 1) @ window


def legacy_global_ssim(true: Tensor, got: Tensor) -> Tensor:
    """SSIM with one window as large as the image. (B, C, H, W) -> (B,) Flatters blurred images; never ranks."""
    true, got = _doubles(true, got)
    moments = torch.stack([true, got, true * true, got * got, true * got]).mean((3, 4))
    return _similarity(moments, correction=1.0).mean(1)


def _similarity(moments: Tensor, correction: float) -> Tensor:
    """SSIM from the local means of x, y, xx, yy and xy, (5, ...) -> (...); `correction` of population covariance."""
    x, y, xx, yy, xy = moments
    spread = correction * (xx - x * x + yy - y * y)
    shared = correction * (xy - x * y)
    likeness = (2 * x * y + LUMINANCE) / (x * x + y * y + LUMINANCE)
    return likeness * (2 * shared + CONTRAST) / (spread + CONTRAST)


def lpips_squeeze(true: Tensor, got: Tensor) -> Tensor | None:
    """LPIPS v0.1 distance with the SqueezeNet 1.1 backbone. (B, C, H, W) -> (B,), or None where it is not available:

    lpips not installed, its backbone's weights absent, a side below 17 pixels, or neither 1 nor 3 channels. There is no
    stand-in: a random backbone gives numbers that look right and mean nothing.
    """
    true, got = _doubles(true, got)
    if min(true.shape[-2:]) < LPIPS_SIDE or true.shape[1] not in (1, 3) or importlib.util.find_spec("lpips") is None:
        return None
    from leakboard.data import DataError
    from leakboard.data.weights import weights_file

    try:
        network = _squeeze_network(weights_file("lpips_squeeze_backbone")).to(true.device)
    except DataError:
        return None
    pairs = zip(true.split(32), got.split(32), strict=True)
    with torch.no_grad():
        parts = [network(_signed_rgb(x), _signed_rgb(y)).flatten() for x, y in pairs]
    return torch.cat(parts).double()


def _signed_rgb(images: Tensor) -> Tensor:
    """[0, 1] grey or RGB to float32 RGB in [-1, 1]."""
    return (2 * images - 1).float().expand(-1, 3, -1, -1)


@cache
def _squeeze_network(backbone: Path) -> nn.Module:
    """The LPIPS network with its real backbone, built once per process; global random state is left as found."""
    import lpips

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # lpips calls torchvision by its old keywords
        network = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    features = torch.load(backbone, map_location="cpu", weights_only=True)
    # The backbone is cut into slices that keep the layers' numbers: `slice2.3.squeeze.weight` is `3.squeeze.weight`.
    network.net.load_state_dict({name: features[name.split(".", 1)[1]] for name in network.net.state_dict()})
    return network.requires_grad_(False)


def oracle_cosine(true: Tensor, got: Tensor) -> float:
    """Median over the true images of |cos| to the got one, each minus its mean, in (B, C, H, W).

    The truth decides order and sign, as in the evaluation of blind source separation (Kariyappa et al. 2023), by a
    matching that no other metric shares. An image without contrast has cosine 0.
    """
    rows = [images.detach().cpu().double().flatten(1) for images in (true, got)]
    first, second = (torch.nn.functional.normalize(row - row.mean(1, keepdim=True), dim=1) for row in rows)
    cosines = (first @ second.T).abs()
    chosen = linear_sum_assignment(-cosines.numpy())
    return float(cosines[chosen].median())
