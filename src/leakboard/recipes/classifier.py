"""Training a victim by its recipe, once: later runs find it by the recipe's hash."""

from __future__ import annotations

import hashlib
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from leakboard.config import Benchmark, Training, digest, root
from leakboard.data import select
from leakboard.data.loading import dataset_of
from leakboard.rng import generator

RECORD_LIMIT = 2_000_000  # bytes: weights up to this size are committed beside their record


def recipe_hash(benchmark: Benchmark) -> str:
    """Over everything that the trained weights depend on."""
    parts = {key: benchmark.asked().get(key) for key in ("seed", "network", "training", "normalise", "data")}
    return digest(parts)


def state_sha(state: dict[str, Tensor]) -> str:
    """12 hex digits over names and values of a state dict."""
    sha = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:12]


def record_folder(benchmark: Benchmark) -> Path:
    return root() / "results" / benchmark.scale / "papers" / "victims" / benchmark.name


def stored_weights(benchmark: Benchmark) -> Path | None:
    """Where weights of this recipe lie: committed beside the record, or in build/. None when they must be trained."""
    name = f"{recipe_hash(benchmark)}.safetensors"
    places = (record_folder(benchmark) / name, root() / "build" / "victims" / name)
    return next((place for place in places if place.exists()), None)


def load_trained(network: nn.Module, benchmark: Benchmark) -> nn.Module:
    """The network with the weights of its recipe, trained now if they are nowhere."""
    path = stored_weights(benchmark)
    if path is None:
        train(network, benchmark)
        path = root() / "build" / "victims" / f"{recipe_hash(benchmark)}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    network.load_state_dict(load_file(path))
    return network


def train(network: nn.Module, benchmark: Benchmark) -> None:
    """SGD with momentum and cosine decay on the recipe's images, in place."""
    recipe = benchmark.training
    assert recipe is not None
    images, labels = _training_set(recipe, benchmark)
    rng = generator("training", benchmark.seed)
    free = [parameter for parameter in network.parameters() if parameter.requires_grad]
    sgd = torch.optim.SGD(free, recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    total = recipe.epochs * math.ceil(len(images) / recipe.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, total)
    network.train()
    for module in network.modules():  # what is held fixed keeps its running statistics too
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
    for _ in range(recipe.epochs):
        for chosen in torch.randperm(len(images), generator=rng).split(recipe.batch):
            batch = augmented(images[chosen], rng) if recipe.augment else images[chosen]
            loss = nn.functional.cross_entropy(network(batch), labels[chosen])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            schedule.step()
    network.eval()


def _training_set(recipe: Training, benchmark: Benchmark) -> tuple[Tensor, Tensor]:
    images = recipe.images.of(benchmark.data)
    if images.shares_with(benchmark.data):
        raise ValueError(f"{benchmark.name}: the network would be trained on the split that holds its victims")
    return select(images).take()


def augmented(images: Tensor, rng: torch.Generator) -> Tensor:
    """The batch (B, C, H, W) shifted as one by up to 4 pixels, each image mirrored half of the time."""
    padded = nn.functional.pad(images, (4, 4, 4, 4), mode="reflect")
    height, width = images.shape[2:]
    down, across = (int(n) for n in torch.randint(0, 9, (2,), generator=rng))
    shifted = padded[:, :, down : down + height, across : across + width]
    mirrored = torch.rand(len(images), generator=rng) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), shifted.flip(3), shifted)


@torch.no_grad()
def accuracy(network: nn.Module, benchmark: Benchmark) -> dict[str, float]:
    """Accuracy on the split that the victims come from, as far as it is here."""
    pool = dataset_of(benchmark.data)
    images, labels = pool.take(pool.available)
    network.eval()
    right = sum(
        int((network(x).argmax(1) == y).sum()) for x, y in zip(images.split(256), labels.split(256), strict=True)
    )
    return {"accuracy": right / len(images), "images": len(images)}


def keep_small_weights(benchmark: Benchmark, folder: Path) -> None:
    """Weights of a recipe, if small, go beside their record, and older ones away."""
    path = stored_weights(benchmark)
    if benchmark.training is None or path is None or path.stat().st_size > RECORD_LIMIT:
        return
    for old in folder.glob("*.safetensors"):
        if old.name != path.name:
            old.unlink()
    if path.parent != folder:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path.name)


def record(network: nn.Module, benchmark: Benchmark) -> dict[str, Any]:
    """What is committed about a trained victim."""
    return {
        "recipe": recipe_hash(benchmark),
        "sha256": state_sha(network.state_dict()),
        **accuracy(network, benchmark),
    }
