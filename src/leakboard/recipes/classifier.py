"""Classifiers that are trained once: victims that many trials share, and the evaluators that judge classes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leakboard.config import Benchmark, Images, Training, root
from leakboard.config.recipes import Classifier
from leakboard.data import select
from leakboard.federation.clients import LocalStep, Sending, optimiser_of
from leakboard.recipes import networks
from leakboard.recipes.pretraining import pretrain
from leakboard.rng import generator, seed_of, seeded


def classifier_of(benchmark: Benchmark, trial: int = 0) -> Classifier | None:
    """The recipe of the victim of a trial, the same of all unless they are trained `anew`; None where it is a fresh
    draw or has public weights.
    """
    training = benchmark.training
    if training is None:
        return None
    start = benchmark.network.model_copy(update={"weights": "fresh", "mode": "eval"})
    return Classifier(
        network=start,
        training=training.model_copy(update={"anew": False}),
        data=benchmark.data,
        normalise=benchmark.normalise,
        seed=seed_of("victim", benchmark.seed, trial) if training.anew else benchmark.seed,
    )


def evaluator_of(benchmark: Benchmark) -> Classifier | None:
    """The recipe of the evaluator, a draw of its own even of the victim's network; None where there is none."""
    if benchmark.evaluator is None:
        return None
    network = benchmark.evaluator.network
    start = {"mode": "eval", "weights": "fresh" if network.weights == "trained" else network.weights}
    return Classifier(
        network=network.model_copy(update=start),
        training=benchmark.evaluator.training,
        data=benchmark.data,
        normalise=benchmark.normalise,
        reject=benchmark.evaluator.reject,
        seed=seed_of("evaluator", benchmark.seed),
    )


def untrained(recipe: Classifier) -> nn.Module:
    further = 0 if recipe.reject is None else 1
    return networks.drawn(recipe.network, recipe.data, recipe.normalise, recipe.seed, further=further)


class Protection(NamedTuple):
    """What a defence puts in the place of a step's gradient, and of that gradient once it is sent. rng: its own."""

    local_step: LocalStep | None
    message: Sending | None
    rng: torch.Generator


def train(
    network: nn.Module,
    recipe: Classifier,
    images: Tensor,
    labels: Tensor,
    device: torch.device | str = "cpu",
    under: Protection | None = None,
) -> None:
    """SGD with momentum, or Adam, and cosine decay on images (N, C, H, W) and labels (N,), in place; ends in eval mode.

    Before it comes what the recipe says of pretraining. under: what acts on every step's gradient.
    """
    spec, rng = recipe.training, generator("training", recipe.seed)
    if spec.pretraining is not None:
        pretrain(network.to(device), spec.pretraining, images, recipe.seed, device)
    free = [parameter for parameter in network.to(device).parameters() if parameter.requires_grad]
    descent = optimiser_of(free, spec)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(descent, steps_of(spec, len(images)))
    network.train()
    for module in network.modules():  # what is held fixed keeps its running statistics too
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
    with seeded("dropout", recipe.seed):
        for _ in range(spec.epochs):
            for chosen in torch.randperm(len(images), generator=rng).split(spec.batch):
                batch = AUGMENT[spec.augment](images[chosen], rng)
                batch = noised(batch, spec.noise, rng) if spec.noise else batch
                descent.zero_grad()
                _slope(network, batch.to(device), labels[chosen].to(device), under)
                descent.step()
                schedule.step()
    network.eval()


def steps_of(spec: Training, images: int) -> int:
    """Of SGD, on so many images."""
    return spec.epochs * math.ceil(images / spec.batch)


def _slope(network: nn.Module, images: Tensor, labels: Tensor, under: Protection | None) -> None:
    """Set the gradient of the batch's mean loss, as it is or as a defence has it."""
    if under is None or under.local_step is None:
        nn.functional.cross_entropy(network(images), labels).backward()
    else:
        slopes = under.local_step(network, nn.CrossEntropyLoss(), images, labels, under.rng)
        for parameter, slope in zip(network.parameters(), slopes, strict=True):
            parameter.grad = slope
    if under is not None and under.message is not None:
        free = {name: parameter for name, parameter in network.named_parameters() if parameter.grad is not None}
        sent = under.message({name: _grad(parameter) for name, parameter in free.items()}, under.rng)
        for name, parameter in free.items():
            parameter.grad = sent[name]


def _grad(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def augmented(images: Tensor, rng: torch.Generator) -> Tensor:
    """The batch (B, C, H, W) shifted as one by up to 4 pixels, each image mirrored half of the time."""
    padded = nn.functional.pad(images, (4, 4, 4, 4), mode="reflect")
    height, width = images.shape[2:]
    down, across = (int(n) for n in torch.randint(0, 9, (2,), generator=rng))
    shifted = padded[:, :, down : down + height, across : across + width]
    mirrored = torch.rand(len(images), generator=rng) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), shifted.flip(3), shifted)


def posed(images: Tensor, rng: torch.Generator) -> Tensor:
    """Each image (B, C, H, W) by a draw of its own: mirrored half of the time, turned by up to 7 degrees, scaled by up
    to a tenth, shifted by up to a twentieth of its sides, its contrast and its brightness changed.
    """
    scale, turn, across, down, contrast, light = (2 * torch.rand(6, len(images), generator=rng) - 1) * torch.tensor(
        [0.1, 0.12, 0.1, 0.1, 0.2, 0.1]
    ).view(6, 1)
    mirror = 1 - 2 * (torch.rand(len(images), generator=rng) < 0.5).float()
    cosine, sine = (1 + scale) * turn.cos(), (1 + scale) * turn.sin()
    rows = (torch.stack([cosine * mirror, -sine, across], 1), torch.stack([sine * mirror, cosine, down], 1))
    grid = nn.functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return (moved * (1 + contrast).view(-1, 1, 1, 1) + light.view(-1, 1, 1, 1)).clamp(0, 1)


AUGMENT = {False: lambda images, rng: images, True: augmented, "posed": posed}


def noised(batch: Tensor, most: float, rng: torch.Generator) -> Tensor:
    """Each image (B, C, H, W) with Gaussian noise of its own deviation, drawn from [0, `most`]; still in [0, 1]."""
    deviations = most * torch.rand(len(batch), 1, 1, 1, generator=rng)
    return (batch + deviations * torch.randn(batch.shape, generator=rng)).clamp(0, 1)


def unseen(benchmark: Benchmark, recipe: Classifier | None) -> Images:
    """Where a classifier is measured: the victims' split; where a class is sought, the one that it did not see."""
    if not benchmark.by_class or recipe is None:
        return benchmark.data.model_copy(update={"classes": None, "start": 0, "count": None})
    other = {"train": "test", "test": "train"}
    return Images(
        **benchmark.data.source,
        split=other.get(recipe.trained_on.split, benchmark.data.split),
        classes=benchmark.data.classes,
    )


@torch.no_grad()
def accuracy(network: nn.Module, on: Images) -> dict[str, float]:
    """Accuracy on these images, as far as they are here; ends in eval mode."""
    images, labels = select(on).take()
    network.eval()
    right = sum(
        int((network(x).argmax(1) == y).sum()) for x, y in zip(images.split(256), labels.split(256), strict=True)
    )
    return {"accuracy": right / len(images), "images": len(images)}


def state_sha(state: dict[str, Tensor]) -> str:
    """12 hex digits over names and values of a state dict."""
    sha = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:12]


def record(
    network: nn.Module, benchmark: Benchmark, evaluator: nn.Module | None = None, others: Sequence[nn.Module] = ()
) -> dict[str, Any]:
    """What is committed about a victim: where its weights come from, what they are, and how well they classify.

    The same of the evaluator, under its name; each on images that it was not trained on. others: the victims of further
    trials, where each has its own: how well they classify stands under `each`, after that of the first.
    """
    recipe = classifier_of(benchmark)
    found: dict[str, Any] = {**_origin(recipe, benchmark), **_quality(network, unseen(benchmark, recipe))}
    if others:
        on = unseen(benchmark, recipe)
        found["each"] = [found["accuracy"], *(accuracy(other, on)["accuracy"] for other in others)]
    return found if evaluator is None else {**found, **record_of_judge(evaluator, benchmark)}


def record_of_judge(evaluator: nn.Module, benchmark: Benchmark) -> dict[str, Any]:
    """What is committed about a benchmark's evaluator, under its name."""
    judge = evaluator_of(benchmark)
    return {"evaluator": {**_origin(judge, benchmark), **_quality(evaluator, unseen(benchmark, judge))}}


def _origin(recipe: Classifier | None, benchmark: Benchmark) -> dict[str, str]:
    if recipe is None:
        return {"weights": networks.public_weights_of(benchmark.network, benchmark.data)}
    return {"recipe": recipe.hash}


def _quality(network: nn.Module, on: Images) -> dict[str, Any]:
    return {"sha256": state_sha(network.state_dict()), **accuracy(network, on)}


def record_folder(benchmark: Benchmark) -> Path:
    """Where the record of a benchmark's victim is committed, with small weights of all that is trained for it."""
    return root() / "results" / benchmark.scale / "papers" / "victims" / benchmark.name
