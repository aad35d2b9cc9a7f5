"""From a recipe to its module: refused where it was trained on victims, found, or trained now.

Victims and evaluators are always trained on the CPU, so that a benchmark is the same question, judged alike, on every
device; priors where the caller says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leakboard.config import Benchmark, Images
from leakboard.config.recipes import Classifier, Denoiser, Diffusion, Generator, Recipe, Restorer
from leakboard.data import Slice, refuse_common_classes, refuse_overlap, select
from leakboard.data.loading import dataset_of
from leakboard.recipes import classifier, denoiser, diffusion, generator, restorer, store
from leakboard.recipes.classifier import classifier_of, evaluator_of, record_folder
from leakboard.recipes.federation import last_of
from leakboard.recipes.junk import with_rejected
from leakboard.recipes.store import RecipeError, Weights

Device = torch.device | str

# kind of recipe -> (the module before training, training in place on images and labels)
KINDS: dict[type, tuple[Callable[[Any], nn.Module], Callable[..., None]]] = {
    Classifier: (classifier.untrained, classifier.train),
    Generator: (generator.untrained, generator.train),
    Restorer: (restorer.untrained, restorer.train),
    Denoiser: (denoiser.untrained, denoiser.train),
    Diffusion: (diffusion.untrained, diffusion.train),
}


@dataclass(frozen=True)
class Trained:
    """What came of a recipe: its module on the CPU, in eval mode, and where its weights lie."""

    model: nn.Module
    weights: Weights


@dataclass(frozen=True)
class Need:
    """Something that must be trained before the trials of a benchmark start. role: victim, evaluator or prior."""

    role: str
    recipe: Recipe

    def __str__(self) -> str:
        return f"{self.role} ({self.recipe.kind} {self.recipe.hash})"


def needs_of(benchmark: Benchmark, priors: Sequence[Recipe] = (), trials: Iterable[int] | None = None) -> list[Need]:
    """What these trials of a benchmark need trained, for attacks with these priors; None: its official trials."""
    anew = benchmark.training is not None and benchmark.training.anew
    draws = (range(benchmark.trials) if trials is None else trials) if anew else (0,)
    victims = [Need("victim", recipe) for draw in draws if (recipe := classifier_of(benchmark, draw)) is not None]
    judge = evaluator_of(benchmark)
    judges = [] if judge is None else [Need("evaluator", judge)]
    return [*victims, *judges, *(Need("prior", recipe) for recipe in priors)]


def lacking(
    benchmark: Benchmark, victims: Slice, priors: Sequence[Recipe] = (), trials: Iterable[int] | None = None
) -> list[Need]:
    """What these trials need trained and is nowhere yet; cheap. None: the official trials.

    victims: every image that a trial hides. DataError names what was, or would be, trained on one of them; RecipeError
    a prior that is no prior.
    """
    needs = needs_of(benchmark, priors, trials)
    for need in needs:
        refuse(need, benchmark, victims)
    return [need for need in needs if store.find(need.recipe, record_folder(benchmark)) is None]


def provide(need: Need, benchmark: Benchmark, device: Device = "cpu") -> Weights:
    """The weights of what a benchmark needs, trained now if they are nowhere: priors on `device`."""
    where = device if need.role == "prior" else "cpu"
    return store.obtain(need.recipe, lambda: _train(need.recipe, where), record_folder(benchmark), where)


def trained_victim(benchmark: Benchmark, victims: Slice, trial: int = 0) -> Trained:
    """The trained victim of a trial, of a benchmark that has one; trained now if it is nowhere."""
    recipe = classifier_of(benchmark, trial)
    if recipe is None:
        raise RecipeError(f"{benchmark.name}: no `training`, so no recipe stands behind its victim")
    return _trained(Need("victim", recipe), benchmark, victims, "cpu")


def trained_evaluator(benchmark: Benchmark, victims: Slice) -> Trained | None:
    """The benchmark's evaluator, None where it has none. For those who judge; no attack is ever given it."""
    recipe = evaluator_of(benchmark)
    return None if recipe is None else _fixed(_trained(Need("evaluator", recipe), benchmark, victims, "cpu"))


def trained_prior(recipe: Recipe, benchmark: Benchmark, victims: Slice, device: Device = "cpu") -> Trained:
    """The prior of an attack on this benchmark; DataError if its images are victims'. No parameter wants a gradient."""
    return _fixed(_trained(Need("prior", recipe), benchmark, victims, device))


def refuse(need: Need, benchmark: Benchmark, victims: Slice) -> None:
    """DataError that names both if the recipe's images and the victims have one in common.

    Another split has none, and needs not be here: weights may be, where the images that they were trained on are not.
    What a released model gives away is what it was trained on: there it is all others that must have seen no victim,
    and priors no image of a class that is aimed at, where the benchmark names these. RecipeError for a prior that is
    the victim or the evaluator itself.
    """
    released = benchmark.threat.sees == "released"
    for images in [] if released and need.role == "victim" else _seen_by(need.recipe):
        what = f"the training images of the {need}, {images}"
        if images.split == victims.dataset.split:
            refuse_overlap({f"the victims of {benchmark.name}": victims, what: select(images)})
        if released and need.role == "prior" and benchmark.data.classes is not None:
            refuse_common_classes({f"the targets of {benchmark.name}": victims, what: select(images)})
    kept = {own.recipe.hash: own.role for own in needs_of(benchmark)}
    if need.role == "prior" and (role := kept.get(need.recipe.hash)):
        raise RecipeError(f"the {need} is the {role} of {benchmark.name}, which no attack is given")


def _seen_by(recipe: Recipe) -> list[Images]:
    rejected = recipe.rejected if isinstance(recipe, Classifier) else None
    return [recipe.trained_on] if rejected is None else [recipe.trained_on, rejected]


def _trained(need: Need, benchmark: Benchmark, victims: Slice, device: Device) -> Trained:
    refuse(need, benchmark, victims)
    weights = provide(need, benchmark, device)
    untrained, _ = KINDS[type(need.recipe)]
    model = untrained(need.recipe)
    model.load_state_dict(store.load(weights.path, model.state_dict()))
    return Trained(model.eval(), weights)


def _fixed(trained: Trained) -> Trained:
    trained.model.requires_grad_(False)
    return trained


def _train(recipe: Recipe, device: Device) -> dict[str, Tensor]:
    untrained, train = KINDS[type(recipe)]
    if isinstance(recipe, Classifier) and recipe.training.federated is not None:
        return last_of(recipe)
    model = untrained(recipe)
    images, labels = select(recipe.trained_on).take()
    if isinstance(recipe, Classifier):
        _refuse_misfit(recipe, images, labels)
        images, labels = with_rejected(recipe, images, labels, dataset_of(recipe.data).classes)
    train(model, recipe, images, labels, device)
    return model.state_dict()


def _refuse_misfit(recipe: Classifier, images: Tensor, labels: Tensor) -> None:
    """RecipeError unless the training images have the shape and the classes of the network."""
    data = dataset_of(recipe.data)
    if tuple(images.shape[1:]) != data.shape or int(labels.max()) >= data.classes:
        raise RecipeError(
            f"classifier {recipe.hash}: {recipe.trained_on} has images of shape {list(images.shape[1:])} and labels up "
            f"to {int(labels.max())}; a network for {recipe.data} takes {list(data.shape)} and tells {data.classes} "
            "classes apart"
        )
