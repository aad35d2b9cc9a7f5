"""One judge per kind of truth: what an attack handed in, against what only the victim's side holds.

A judge is `judge(truth, got) -> {metric: value}`; the names are those of `metrics.py`. What an attack did not hand in
scores what this trial's noise scores, so a failed trial gets what the judge gives the control.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leakboard.metrics import judged_against
from leakboard.score.classes import ClassTruth, class_scores
from leakboard.score.images import score, share_named
from leakboard.threat import Reconstruction

Judged = dict[str, float | list[float] | None]


@dataclass(frozen=True)
class Truth:
    """All that a judge may hold of one trial.

    images (B, C, H, W) and labels (B,): the secret. noise (B, C, H, W): the draw of the control row. perceptual:
    whether LPIPS is computed, where its weights are. of_class: what tells whether images show a class. others
    (N, C, H, W): what a true image is to be told from, where that is asked.
    """

    images: Tensor
    labels: Tensor
    noise: Tensor
    perceptual: bool = False
    of_class: ClassTruth | None = None
    others: Tensor | None = None


Judge = Callable[[Truth, Reconstruction], Judged]


def judge_images(truth: Truth, got: Reconstruction) -> Judged:
    """Matched to the truth once, every metric per image; labels by the same matching."""
    scores = score(
        truth.images, truth.labels, got.images, got.labels, truth.noise, truth.perceptual, truth.others
    )  # fmt: skip
    return {**scores.summary(), "mse_each": scores.mse, "psnr_each": scores.psnr}


def judge_labels(truth: Truth, got: Reconstruction) -> Judged:
    """The share of the batch's labels that were named, as a multiset; images that came along do not count."""
    if got.labels is None:
        return {"label_accuracy": 0.0}
    return {"label_accuracy": share_named(truth.labels, got.labels)}


def judge_classes(truth: Truth, got: Reconstruction) -> Judged:
    """Whether images show the class of the secret ones: an independent evaluator, distances to victims and others."""
    images = torch.cat([got.images, truth.noise[len(got.images) :]])  # what was not handed in is noise
    return {**class_scores(images, truth.of_class or ClassTruth(int(truth.labels[0]), truth.images))}


JUDGES: dict[str, Judge] = {"images": judge_images, "labels": judge_labels, "classes": judge_classes}


def judge_of(metric: str) -> Judge:
    """The judge of a board that ranks by this metric."""
    return JUDGES[judged_against(metric)]


def nothing(shape: tuple[int, ...], labelled: bool) -> Reconstruction:
    """What a failed trial of images (B, C, H, W) has: no image, and no right label where labels were to be found."""
    return Reconstruction(torch.empty(0, *shape[1:]), torch.empty(0, dtype=torch.long) if labelled else None)
