"""Where a reconstruction meets the truth: the judge of the board, and what it may hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leakboard.config import Benchmark
from leakboard.metrics import judged_against
from leakboard.recipes.trained import trained_evaluator
from leakboard.rng import generator
from leakboard.run.kept import Pictures
from leakboard.score import Judged, Truth, judge_of, match, stand_ins
from leakboard.threat import Reconstruction
from leakboard.victim.secrets import Secret, public, victim_slice


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
    of_class: dict[str, Any] = {} if kind != "classes" else _of_class(benchmark)
    truth = Truth(hidden.images, hidden.labels, noise, benchmark.scale == "paper", **of_class)
    scores = judge_of(benchmark.metrics[0])(truth, got)
    return Judgement(truth, scores, kind == "images", _pictures(kind, truth, got))


def noise_of(benchmark: Benchmark, trial: int, hidden: Secret) -> Tensor:
    """What stands in for images that were not handed in (B, C, H, W): the draw of the control row `noise`.

    In the order in which that row's images are matched to the truth, so that a failed trial scores what that row
    scores, to the bit.
    """
    noise = torch.rand(hidden.images.shape, generator=generator("attack", benchmark.seed, trial))
    return noise[match(hidden.images, noise)]


def _of_class(benchmark: Benchmark) -> dict[str, Any]:
    """What judges a class: public images to be nearer to than to victims, and an evaluator that no attack has seen."""
    pool, evaluator = public(benchmark), trained_evaluator(benchmark, victim_slice(benchmark))
    return {"public": pool and pool.images, "evaluator": evaluator and evaluator.model}


def _pictures(kind: str, truth: Truth, got: Reconstruction) -> Pictures | None:
    """Truth and reconstruction for the grid; none of labels alone."""
    if kind == "labels":
        return None
    if kind == "images":
        index = match(truth.images, got.images)
    else:  # of a class, nothing stands for anything: in the order in which it was handed in
        index = torch.arange(len(truth.images)).where(torch.arange(len(truth.images)) < len(got.images), -1)
    return truth.images.numpy(), stand_ins(index, got.images, truth.noise).numpy()
