"""What the attack is after, and what anybody may have instead.

The first trials of a benchmark are its official ones, which boards report. The images of those after them are for
tuning: development victims.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from leakboard.config import Benchmark
from leakboard.data import DataError, Dataset, Slice, refuse_overlap, select
from leakboard.data.loading import dataset_of
from leakboard.recipes.trained import needs_of
from leakboard.threat import Public

MOST = 100  # development trials, where nobody asks for another number


@dataclass(frozen=True)
class Secret:
    """The true images (B, C, H, W) in [0, 1] and labels (B,) of one trial. Only victim and score ever hold it."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Secret:
        return Secret(self.images.to(device), self.labels.to(device))


def secret(benchmark: Benchmark, trial: int) -> Secret:
    """The images of one trial: consecutive in official order, no image in two trials.

    Where a class is sought, of a released model or by a live client, the classes take turns as the target, and the
    secrets are images of that class. With `equal_labels`, so many of the batch have that class and the others are of
    the classes after it.
    """
    victims = dataset_of(benchmark.data)
    if not victims.truth:
        raise DataError(
            f"{victims.name} is a lossy copy: it may train a network but is never what an attack is scored on"
        )
    return Secret(*victims.take(_positions(benchmark, trial)))


def _positions(benchmark: Benchmark, trial: int) -> Sequence[int] | np.ndarray:
    """The official positions of one trial's images. DataError where one of them is public."""
    victims, chosen = dataset_of(benchmark.data), _asked_for(benchmark, trial)
    in_order = not benchmark.by_class and benchmark.equal_labels is None
    if in_order and benchmark.public_images is not None:
        hidden = Slice(victims, np.asarray(chosen))
        refuse_overlap({f"{benchmark.name}: the images of trial {trial}": hidden, "public images": _pool(benchmark)})
    return chosen


def _asked_for(benchmark: Benchmark, trial: int) -> Sequence[int] | np.ndarray:
    """The positions that are a trial's by its number, whoever else has them."""
    if benchmark.by_class:
        return _of_class(benchmark, _target(benchmark, trial))
    if benchmark.equal_labels is not None:
        return _with_equal_labels(dataset_of(benchmark.data), benchmark, benchmark.equal_labels, trial)
    return _in_order(benchmark, trial)


def class_images(benchmark: Benchmark, target: int) -> Tensor:
    """All images (N, C, H, W) of a class that a released model, or a federation, may give away."""
    return dataset_of(benchmark.data).take(_of_class(benchmark, target, whole=True))[0]


def images_of_clients(benchmark: Benchmark, target: int) -> Secret:
    """What honest clients hold between them where a class is sought; of the target only where the benchmark says so."""
    images, labels = select(benchmark.data).take()
    kept = labels != target if benchmark.target is not None and not benchmark.target.held else labels >= 0
    return Secret(images[kept], labels[kept])


def class_means(benchmark: Benchmark) -> dict[int, Tensor]:
    """{class that may be the target: the mean (C, H, W) of its images}"""
    images, labels = select(benchmark.data).take()
    return {target: images[labels == target].mean(0) for target in _targets(benchmark)}


def _targets(benchmark: Benchmark) -> Sequence[int]:
    """The classes that may be sought; where the benchmark says which are, these first."""
    among = benchmark.data.classes or range(dataset_of(benchmark.data).classes)
    official = () if benchmark.target is None else benchmark.target.classes
    return [*official, *(label for label in among if label not in official)]


def _target(benchmark: Benchmark, trial: int) -> int:
    """The class that a trial is after: the official ones in turn, and after the official trials the others."""
    targets = _targets(benchmark)
    official = len(targets) if benchmark.target is None else len(benchmark.target.classes)
    if official < len(targets) and trial >= benchmark.trials:
        return targets[official + (trial - benchmark.trials) % (len(targets) - official)]
    return targets[trial % official]


def _in_order(benchmark: Benchmark, trial: int) -> np.ndarray:
    """The batch of `trial` in official order; of some classes or up to a count, among the images that are here."""
    data, first = benchmark.data, trial * benchmark.batch
    if data.classes is None and data.count is None:
        return np.arange(data.start + first, data.start + first + benchmark.batch)
    chosen = select(data).positions[first : first + benchmark.batch]
    if len(chosen) < benchmark.batch:
        raise DataError(f"{benchmark.name}: {data} has no {benchmark.batch} images left for trial {trial}")
    return chosen


def _of_class(benchmark: Benchmark, target: int, whole: bool = False) -> np.ndarray:
    """Positions of the images of a class: those of one trial, or all."""
    pool = select(benchmark.data)
    labels = pool.dataset.labels.numpy()[np.searchsorted(pool.dataset.available, pool.positions)]
    chosen = pool.positions[labels == target]
    chosen = chosen if whole else chosen[: benchmark.batch]
    if len(chosen) < benchmark.batch:
        raise DataError(
            f"{benchmark.name}: {benchmark.data} has {len(chosen)} images of class {target}, expected {benchmark.batch}"
        )
    return chosen


def _with_equal_labels(victims: Dataset, benchmark: Benchmark, equal: int, trial: int) -> list[int]:
    """Positions of the batch of `trial`: of every class its images in order, each in one batch only."""
    if not 1 <= equal <= benchmark.batch or benchmark.batch - equal >= victims.classes:
        raise DataError(
            f"{benchmark.name}: {equal} equal labels in a batch of {benchmark.batch} with {victims.classes} classes"
        )
    labels = victims.labels.numpy()
    waiting = {label: deque(victims.available[labels == label].tolist()) for label in range(victims.classes)}
    for number in range(trial + 1):
        others = [(number + step) % victims.classes for step in range(1, benchmark.batch - equal + 1)]
        wanted = [number % victims.classes] * equal + others
        short = [label for label in wanted if len(waiting[label]) < wanted.count(label)]
        if short:
            raise DataError(f"{benchmark.name}: {benchmark.data} has no images of class {short[0]} left")
        chosen = [waiting[label].popleft() for label in wanted]
    return chosen


def victim_slice(benchmark: Benchmark) -> Slice:
    """All images that any trial of the benchmark hides, as far as they are here."""
    victims = dataset_of(benchmark.data)
    if benchmark.by_class or benchmark.equal_labels is not None:
        return select(benchmark.data)
    asked = benchmark.trials * benchmark.batch
    if benchmark.data.classes is not None or benchmark.data.count is not None:
        return Slice(victims, select(benchmark.data).positions[:asked])
    first = benchmark.data.start
    return Slice(victims, np.intersect1d(np.arange(first, first + asked), victims.available))


def _pool(benchmark: Benchmark) -> Slice:
    assert benchmark.public_images is not None
    return select(benchmark.public_images)


def public(benchmark: Benchmark) -> Public | None:
    """Images that are no victims, for everybody; None where the threat model grants none."""
    if benchmark.public_images is None:
        return None
    pool = _pool(benchmark)
    refuse_overlap({f"{benchmark.name}: victims": victim_slice(benchmark), "public images": pool})
    return Public(*pool.take())


def shape_and_classes(benchmark: Benchmark) -> tuple[tuple[int, int, int], int]:
    victims = dataset_of(benchmark.data)
    return victims.shape, victims.classes


def official_among(benchmark: Benchmark, asked: range | None) -> range:
    """The trials that boards report, of those that are asked for; None asks for all."""
    return range(benchmark.trials) if asked is None else range(asked.start, min(asked.stop, benchmark.trials))


def official_trials(benchmark: Benchmark, asked: range | None) -> range:
    """`official_among`; DataError where that is none."""
    found = official_among(benchmark, asked)
    if asked and not found:
        raise DataError(
            f"{benchmark.name} has {benchmark.trials} trials at {benchmark.scale} scale, the first one is 0; trial "
            f"{asked[0]} is none of them. To tune, `leakboard run ATTACK {benchmark.name} --victims development`"
        )
    return found


def development_trials(benchmark: Benchmark, most: int = MOST) -> range:
    """Trials to tune on: numbers after the official ones, whose victims no board reports.

    The order is that of the official trials, whose numbering goes on. Taken is the longest run of trials whose images
    are all here, neither public nor in a training set of the benchmark's victim or evaluator; of long ones the first
    `most`. Where a class is sought, development is on those that no official trial aims at. DataError where there are
    none.
    """
    taken, best, run = _taken(benchmark), range(0), range(0)
    for trial, chosen in _further(benchmark):
        if np.isin(chosen, taken).any():
            continue
        run = range(run.start if trial == run.stop else trial, trial + 1)
        best = max(best, run, key=len)
        if len(best) == most:
            break
    if not best:
        raise DataError(_none_left(benchmark, len(taken)))
    return best


def development_slice(benchmark: Benchmark, trials: Sequence[int]) -> Slice:
    """All images of these trials."""
    positions = [np.asarray(_asked_for(benchmark, trial)) for trial in trials]
    return Slice(dataset_of(benchmark.data), np.unique(np.concatenate(positions)))


def _further(benchmark: Benchmark) -> Iterator[tuple[int, np.ndarray]]:
    """(trial, its positions) after the official ones, of all whose images are here."""
    here, most = dataset_of(benchmark.data).available, benchmark.trials + len(_of_no_official_trial(benchmark))
    for trial in itertools.count(benchmark.trials):
        if benchmark.by_class and trial >= most:
            return
        try:
            chosen = np.asarray(_asked_for(benchmark, trial))
        except DataError:
            if benchmark.by_class:  # a class with too few images; the next one may have more
                continue
            return
        if not len(here) or chosen.min() > here[-1]:
            return
        if np.isin(chosen, here).all():
            yield trial, chosen


def _of_no_official_trial(benchmark: Benchmark) -> Sequence[int]:
    """The classes that might be sought, and are not."""
    named = benchmark.trials if benchmark.target is None else len(benchmark.target.classes)
    return _targets(benchmark)[named:]


def _taken(benchmark: Benchmark) -> np.ndarray:
    """Positions in the victims' split that are public, or that the benchmark's victim or evaluator is trained on.

    What a released model gives away is what it was trained on: there they are what is asked for.
    """
    victims = dataset_of(benchmark.data)
    sections = [] if benchmark.public_images is None else [benchmark.public_images]
    if benchmark.threat.sees != "released":
        sections += [need.recipe.trained_on for need in needs_of(benchmark)]
    found = [np.empty(0, dtype=np.int64)]
    for other in (select(images) for images in sections if images.split == victims.split):
        if other.dataset.origin == victims.origin:  # of a lossy copy, nobody knows which image is which
            found.append(other.positions if other.dataset.name == victims.name else victims.available)
    return np.unique(np.concatenate(found))


def _none_left(benchmark: Benchmark, taken: int) -> str:
    if benchmark.by_class:
        aims = len(_targets(benchmark)) - len(_of_no_official_trial(benchmark))
        said = f"{len(_targets(benchmark))} classes of {benchmark.data} can be targets, {aims} of them are official"
    else:
        official, here = benchmark.trials * benchmark.batch, len(dataset_of(benchmark.data).available)
        others = f", {taken:,} are public or trained on" if taken else ""
        said = f"{here:,} images of {benchmark.data} are here, {official:,} of them are official victims{others}"
    return (
        f"{benchmark.name} has no development victims at {benchmark.scale} scale: {said}, and a trial takes "
        f"{benchmark.batch}"
    )
