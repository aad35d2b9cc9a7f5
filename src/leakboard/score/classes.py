"""Scores of class-level attacks (model inversion, GANs): no single true image stands behind what they hand in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from leakboard.score.assignment import mse_matrix


def class_scores(
    images: Tensor,
    evaluator: nn.Module | None,
    target: int | Tensor,
    victim_images: Tensor,
    public_images: Tensor | None,
) -> dict[str, float | None]:
    """Judge images (N, C, H, W) that shall show the class `target`, one for all or (N,).

    `evaluator` is a classifier, (N, C, H, W) in [0, 1] -> logits, that the attack never saw; it runs in eval mode.
    evaluator_accuracy: share of the images that it takes for the target. nearest_victim_mse and nearest_public_mse:
    mean distance to the nearest image of each pool; an attack that merely hands back public data is nearer to the
    latter. diversity: mean pairwise RMSE, 0 for copies of one image. None: there is nothing to measure.
    ValueError when an image is not finite.
    """
    if not torch.isfinite(images).all():
        raise ValueError("images are not finite")
    return {
        "evaluator_accuracy": None if evaluator is None else _accuracy(images, evaluator, target),
        "nearest_victim_mse": _nearest(images, victim_images),
        "nearest_public_mse": None if public_images is None else _nearest(images, public_images),
        "diversity": _diversity(images),
    }


def _accuracy(images: Tensor, evaluator: nn.Module, target: int | Tensor) -> float:
    """Share of images classified as the target; 0 without images. Leaves the evaluator's modes as they were."""
    if not len(images):
        return 0.0
    modes = {module: module.training for module in evaluator.modules()}
    evaluator.eval()
    try:
        with torch.no_grad():
            right = evaluator(images).argmax(1) == torch.as_tensor(target, device=images.device)
    finally:
        for module, training in modes.items():
            module.training = training
    return float(right.double().mean())


def _nearest(images: Tensor, pool: Tensor) -> float | None:
    """Mean over the images of the MSE to the nearest one in the pool; the pool is read 1024 at a time."""
    if not len(images) or not len(pool):
        return None
    nearest = [mse_matrix(images, part).amin(1) for part in pool.split(1024)]
    return float(torch.stack(nearest).amin(0).mean())


def _diversity(images: Tensor) -> float | None:
    """Mean RMSE over all pairs of different images; None below two images."""
    count = len(images)
    if count < 2:
        return None
    return float(mse_matrix(images, images).sqrt().sum() / (count * (count - 1)))
