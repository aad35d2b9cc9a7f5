"""Scores of class-level attacks (model inversion, GANs): no single true image stands behind what they hand in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakboard.score.assignment import mse_matrix
from leakboard.score.similarity import ssim

AT_ONCE = 256  # images in one pass
TOP = 5
NAMED = ("evaluator_accuracy", "evaluator_top5", "lineup_accuracy", "evaluator_confidence")
FEATURES = ("nearest_victim_feature", "nearest_public_feature")


@dataclass(frozen=True)
class ClassTruth:
    """All that tells whether images show the class `target`.

    members (N, C, H, W): its images that the attacked model was trained on. public (P, C, H, W): images that anybody
    has. means {class: (C, H, W)}: the mean images of all classes that may be the target, None where they tell nothing.
    evaluator: a classifier, images in [0, 1] -> logits (N, K), that no attack ever saw; of its outputs those from
    `classes` on mean that an image shows no class (None: there are none). released: the attacked model.
    """

    target: int
    members: Tensor
    public: Tensor | None = None
    means: dict[int, Tensor] | None = None
    evaluator: nn.Module | None = None
    released: nn.Module | None = None
    classes: int | None = None


def class_scores(images: Tensor, truth: ClassTruth) -> dict[str, float | None]:
    """Judge images (M, C, H, W) that shall show a class. None: there is nothing to measure.

    What each number is stands in `metrics.py`. An attack that merely hands back public data is nearer to public images
    than to victims, in pixels and in the evaluator's features; one that merely fools the released model has its
    confidence, and not the evaluator's. ValueError when an image is not finite.
    """
    if not torch.isfinite(images).all():
        raise ValueError("images are not finite")
    return {
        **_named(images, truth),
        "target_confidence": _confidence(images, truth.released, truth.target),
        **_distances(images, truth),
        **_likeness(images, truth),
        "diversity": _diversity(images),
    }


def _named(images: Tensor, truth: ClassTruth) -> dict[str, float | None]:
    """What the evaluator says: an image that it rejects is not identified, whatever class comes second."""
    if truth.evaluator is None or not len(images):
        nothing = None if truth.evaluator is None else 0.0
        return {**dict.fromkeys(NAMED, nothing), **dict.fromkeys(FEATURES)}
    logits, features = answers(truth.evaluator, images)
    first, named = logits.argmax(1), logits[:, : truth.classes].argmax(1)
    best = logits.topk(min(TOP, logits.shape[1])).indices
    return {
        "evaluator_accuracy": float((first == truth.target).double().mean()),
        "evaluator_top5": float((best == truth.target).any(1).double().mean()),
        "lineup_accuracy": float((named == truth.target).double().mean()),
        "evaluator_confidence": float(logits.softmax(1)[:, truth.target].double().mean()),
        "nearest_victim_feature": _nearest_feature(features, truth.evaluator, truth.members),
        "nearest_public_feature": _nearest_feature(features, truth.evaluator, truth.public),
    }


def answers(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """(logits (N, K), features (N, D)) in eval mode: what the network's last linear layer returns and is given.

    None for features where it has no such layer. Leaves the modes of all its parts as they were.
    """
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1:]
    kept: list[Tensor] = []
    hooks = [layer.register_forward_pre_hook(lambda _, given: kept.append(given[0].flatten(1))) for layer in last]
    try:
        with _evaluating(network), torch.no_grad():
            logits = torch.cat([network(part) for part in images.split(AT_ONCE)])
    finally:
        for hook in hooks:
            hook.remove()
    return logits, torch.cat(kept) if kept else None


@contextlib.contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _nearest_feature(features: Tensor | None, evaluator: nn.Module, pool: Tensor | None) -> float | None:
    """Mean over the images' features (M, D) of one minus the cosine to the nearest of the pool's; None without any."""
    if features is None or pool is None or not len(pool):
        return None
    others = answers(evaluator, pool)[1]
    assert others is not None
    cosines = F.normalize(features.double(), dim=1) @ F.normalize(others.double(), dim=1).T
    return float((1 - cosines.amax(1)).clamp(min=0).mean())


def _confidence(images: Tensor, released: nn.Module | None, target: int) -> float | None:
    if released is None:
        return None
    return float(answers(released, images)[0].softmax(1)[:, target].double().mean()) if len(images) else 0.0


def _likeness(images: Tensor, truth: ClassTruth) -> dict[str, float | None]:
    """SSIM to the mean image of the class, and the place that this mean takes among those of all classes."""
    if truth.means is None or not len(images) or min(images.shape[-2:]) < 7:
        return {"class_mean_ssim": None, "class_mean_rank": None}
    means = torch.stack(list(truth.means.values())).to(images)
    alike = torch.stack([ssim(means, image.expand_as(means)) for image in images])  # (M, classes)
    own = alike[:, list(truth.means).index(truth.target)]
    rank = 1 + (alike > own[:, None]).sum(1)
    return {"class_mean_ssim": float(own.mean()), "class_mean_rank": float(rank.double().mean())}


def _distances(images: Tensor, truth: ClassTruth) -> dict[str, float | None]:
    """Mean over the images of the MSE to the nearest victim and to the nearest public image, and how often the victim
    is the nearer one.
    """
    victim, public = (None if pool is None else _nearest(images, pool) for pool in (truth.members, truth.public))
    return {
        "nearer_victim": None if victim is None or public is None else float((victim < public).double().mean()),
        "nearest_victim_mse": None if victim is None else float(victim.mean()),
        "nearest_public_mse": None if public is None else float(public.mean()),
    }


def _nearest(images: Tensor, pool: Tensor) -> Tensor | None:
    """The MSE of each image to the nearest one in the pool, (M,); the pool is read 1024 at a time."""
    if not len(images) or not len(pool):
        return None
    nearest = [mse_matrix(images, part).amin(1) for part in pool.split(1024)]
    return torch.stack(nearest).amin(0)


def _diversity(images: Tensor) -> float | None:
    """Mean RMSE over all pairs of different images; None below two images."""
    count = len(images)
    if count < 2:
        return None
    return float(mse_matrix(images, images).sqrt().sum() / (count * (count - 1)))
