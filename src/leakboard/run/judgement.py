"""Where a reconstruction meets the truth: the judge of the board, and what it may hold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leakboard.config import Benchmark
from leakboard.metrics import judged_against
from leakboard.recipes.trained import trained_evaluator
from leakboard.rng import generator
from leakboard.run.kept import Pictures
from leakboard.score import ClassTruth, Judged, Truth, judge_of, match, mse_matrix, stand_ins
from leakboard.threat import Reconstruction
from leakboard.victim.network import network
from leakboard.victim.secrets import Secret, class_images, class_means, public, shape_and_classes, victim_slice

ALIKE = {"class_mean_ssim", "class_mean_rank"}  # mean something where the images of a class are near-identical


@dataclass(frozen=True)
class Judgement:
    """scores: every metric of the judge. compares: whether images are held against true ones, one by one."""

    truth: Truth
    scores: Judged
    compares: bool
    pictures: Pictures | None


def judged(benchmark: Benchmark, trial: int, hidden: Secret, got: Reconstruction) -> Judgement:
    """What the judge of the benchmark's first metric says of one trial."""
    kind = judged_against(benchmark.metrics[0])
    noise = noise_of(benchmark, trial, hidden)
    of_class = _of_class(benchmark, trial, int(hidden.labels[0])) if kind == "classes" else None
    pool = public(benchmark) if "retrieval" in benchmark.metrics else None
    others = None if pool is None else pool.images
    truth = Truth(hidden.images, hidden.labels, noise, benchmark.scale == "paper", of_class, others)
    scores = judge_of(benchmark.metrics[0])(truth, got)
    return Judgement(truth, scores, kind == "images", _pictures(kind, truth, got))


def noise_of(benchmark: Benchmark, trial: int, hidden: Secret) -> Tensor:
    """What stands in for images that were not handed in (B, C, H, W): the draw of the control row `noise`.

    In the order in which that row's images are matched to the truth, so that a failed trial scores what that row
    scores, to the bit.
    """
    noise = torch.rand(hidden.images.shape, generator=generator("attack", benchmark.seed, trial))
    return noise[match(hidden.images, noise)]


def _of_class(benchmark: Benchmark, trial: int, target: int) -> ClassTruth:
    """What judges a class: its images and public ones, the attacked model, an evaluator that no attack has seen."""
    pool, evaluator = public(benchmark), trained_evaluator(benchmark, victim_slice(benchmark))
    return ClassTruth(
        target,
        class_images(benchmark, target),
        None if pool is None else pool.images,
        class_means(benchmark) if ALIKE & set(benchmark.metrics) else None,
        None if evaluator is None else evaluator.model,
        network(benchmark, trial) if benchmark.network.weights != "fresh" else None,
        shape_and_classes(benchmark)[1],
    )


def _pictures(kind: str, truth: Truth, got: Reconstruction) -> Pictures | None:
    """Truth and reconstruction for the grid; none of labels alone."""
    if kind == "labels":
        return None
    if kind == "images":
        index = match(truth.images, got.images)
    else:  # of a class, nothing stands for anything: in the order in which it was handed in
        index = torch.arange(len(truth.images)).where(torch.arange(len(truth.images)) < len(got.images), -1)
    shown = stand_ins(index, got.images, truth.noise)
    if truth.of_class is None:
        return truth.images.numpy(), shown.numpy()
    members = truth.of_class.members
    nearest = members[mse_matrix(shown, members).argmin(1)]
    return members.mean(0, keepdim=True).expand_as(shown).numpy(), shown.numpy(), nearest.numpy()
