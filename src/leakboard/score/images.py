"""All metrics of one trial. Whatever an attack did not hand in scores what this trial's noise scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leakboard.score.assignment import match, mse_matrix, stand_ins
from leakboard.score.similarity import lpips_squeeze, maximum_error, mse, oracle_cosine, psnr, ssim

EXACT = 1e-3  # largest absolute error of an image that counts as exact
SUCCESS = ("1e-2", "1e-3", "1e-4")  # an image is a success below this MSE
SSIM_SIDE = 7  # pixels; smaller images have no SSIM


@dataclass(frozen=True)
class Scores:
    """One trial: every list has one entry per TRUE image, in the order of the truth. None: not available."""

    mse: list[float]
    psnr: list[float]
    ssim: list[float] | None
    lpips: list[float] | None
    exact: list[bool]
    handed_in: int
    label_accuracy: float | None
    oracle_cosine: float
    retrieved: list[bool] | None = None

    def summary(self) -> dict[str, float | None]:
        """The trial's numbers: means over the true images, shares in [0, 1], label accuracy, the oracle's |cosine|."""
        return {
            "mse": _mean(self.mse),
            "psnr": _mean(self.psnr),
            "ssim": _mean(self.ssim),
            "lpips": _mean(self.lpips),
            "exact": _mean(self.exact),
            "false_images": (self.handed_in - sum(self.exact)) / len(self.exact),
            "above20": _mean([value > 20 for value in self.psnr]),
            "above30": _mean([value > 30 for value in self.psnr]),
            **{f"success_{limit}": _mean([value < float(limit) for value in self.mse]) for limit in SUCCESS},
            "label_accuracy": self.label_accuracy,
            "oracle_cosine": self.oracle_cosine,
            "retrieval": _mean(self.retrieved),
        }


def score(
    true_images: Tensor,
    true_labels: Tensor,
    got_images: Tensor,
    got_labels: Tensor | None,
    noise_images: Tensor,
    with_lpips: bool,
    others: Tensor | None = None,
) -> Scores:
    """Score what an attack handed in, (M, C, H, W) and (M,) or None, against the truth, (B, C, H, W) and (B,).

    Images are matched once and nothing is clamped. `noise_images` (B, C, H, W) is the trial's noise row: it scores in
    place of every true image that is left over, so in place of all of them when the trial failed (M = 0). A failed
    trial of an attack that does infer labels hands in empty labels, not None: it got none of them right.
    others (N, C, H, W): what a true image may be confused with, beside the other true ones; None: it is not asked.
    ValueError when shapes do not fit or the truth or the noise is not finite.
    """
    _check(true_images, true_labels, got_images, got_labels, noise_images)
    index = match(true_images, got_images)
    images = stand_ins(index, got_images, noise_images)
    distance = lpips_squeeze(true_images, images) if with_lpips else None
    return Scores(
        mse=mse(true_images, images).tolist(),
        psnr=psnr(true_images, images).tolist(),
        ssim=ssim(true_images, images).tolist() if min(true_images.shape[-2:]) >= SSIM_SIDE else None,
        lpips=None if distance is None else distance.tolist(),
        exact=(maximum_error(true_images, images) < EXACT).tolist(),
        handed_in=len(got_images),
        label_accuracy=None if got_labels is None else _label_accuracy(true_labels, got_labels, index, len(got_images)),
        oracle_cosine=oracle_cosine(true_images, images),
        retrieved=None if others is None else retrieved(true_images, images, others).tolist(),
    )


def retrieved(true: Tensor, images: Tensor, others: Tensor) -> Tensor:
    """Whether each image (B, C, H, W) is nearer, by MSE, to its true one than to any other one. (B,) bool.

    Others are the rest of `true` (B, C, H, W) and `others` (N, C, H, W). Of equals, none is found.
    """
    distance = mse_matrix(images, torch.cat([true, others.to(true)]))
    own = distance.diagonal().clone()
    distance.diagonal().fill_(torch.inf)
    return own < distance.amin(1)


def _check(true: Tensor, true_labels: Tensor, got: Tensor, got_labels: Tensor | None, noise: Tensor) -> None:
    if true.ndim != 4 or not len(true) or noise.shape != true.shape or len(true_labels) != len(true):
        shapes = [tuple(part.shape) for part in (true, true_labels, noise)]
        raise ValueError(f"true images, true labels and noise do not belong together: {shapes}")
    if not torch.isfinite(noise).all():
        raise ValueError("noise images are not finite")
    if got_labels is not None and len(got_labels) != len(got) and (len(got) or len(got_labels) > len(true)):
        raise ValueError(f"{len(got_labels)} labels for {len(got)} got and {len(true)} true images")


def _label_accuracy(true_labels: Tensor, got_labels: Tensor, index: Tensor, handed_in: int) -> float:
    """Share of the true images whose label was found: by the images' matching, or as a multiset without images."""
    true_labels, got_labels = true_labels.detach().cpu().long(), got_labels.detach().cpu().long()
    if handed_in:
        right = (got_labels[index.clamp(min=0)] == true_labels) & (index >= 0)
        return float(right.double().mean())
    return share_named(true_labels, got_labels)


def share_named(true: Tensor, got: Tensor) -> float:
    """Of the labels `true` (B,), how many are in `got` as often."""
    true, got = true.detach().cpu().long(), got.detach().cpu().long()
    found = sum(min(int((true == label).sum()), int((got == label).sum())) for label in true.unique())
    return found / len(true)


def _mean(values: list[float] | list[bool] | None) -> float | None:
    return None if values is None else sum(values) / len(values)
