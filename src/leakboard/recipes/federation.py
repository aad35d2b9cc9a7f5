"""A federated training kept for ever: train once, attack many.

Every round lies in `build/federations/<hash>/<number>.safetensors`: the model after it, and every message. What a round
draws depends on (seed, round, client) alone, so a training that was killed goes on where it stopped, bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from pydantic import model_validator
from torch import nn

from leakboard.config import ConfigError, Federation, Images, Network, digest, root
from leakboard.config.recipes import Classifier
from leakboard.config.sections import Normalise, Strict
from leakboard.data import select
from leakboard.data.loading import dataset_of
from leakboard.data.partition import Coverage
from leakboard.errors import Fault
from leakboard.federation import log
from leakboard.federation.clients import Held, honest, spread
from leakboard.federation.rounds import Message, Plan, Round, State, derived, fitting, rounds, state_of
from leakboard.federation.rules import rule_named
from leakboard.recipes.classifier import state_sha
from leakboard.recipes.networks import drawn
from leakboard.recipes.store import repeatable
from leakboard.rng import seed_of

# What anybody may train at the command line: clients, rounds, local epochs.
PRESETS = {"quick": (3, 3, 2), "standard": (5, 10, 5), "extensive": (10, 20, 10)}
AT_ONCE = 500  # images in one pass, where a model is measured


class FederationRecipe(Strict):
    """Everything that the rounds depend on: honest clients that share `images` as the partition says, from one network.

    The clients train in the network's own mode. ConfigError for a network that is `trained`, or holds `features` fixed.
    """

    network: Network
    images: Images
    normalise: Literal["none", "imagenet"] | Normalise = "none"
    federation: Federation
    seed: int

    @model_validator(mode="after")
    def _starts_untrained(self) -> FederationRecipe:
        if self.network.weights == "trained" or self.network.features is not None:
            raise ValueError("a federation starts from fresh or pretrained weights and trains all of them")
        return self


def preset(name: str, images: Images, partition: dict[str, Any], seed: int) -> FederationRecipe:
    """A federation of these images by a name of `PRESETS`; partition: keys of `Federation` that say who holds what.

    ConfigError lists the presets there are.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there are: {', '.join(PRESETS)}")
    clients, rounds_, epochs = PRESETS[name]
    spec = Federation(
        clients=clients, rounds=rounds_, epochs=epochs, batch=64, learning_rate=0.01, momentum=0.9, **partition
    )
    channels = dataset_of(images).shape[0]
    centred = Normalise(mean=(0.5,) * channels, std=(0.25,) * channels)
    network = Network(name="cnn3", width=8)
    return FederationRecipe(network=network, images=images, normalise=centred, federation=spec, seed=seed)


def last_of(recipe: Classifier) -> State:
    """The global model after the last round of a classifier that a federation trained."""
    spec, who = recipe.training, recipe.training.federated
    assert who is not None
    local = {name: getattr(spec, name) for name in ("learning_rate", "epochs", "batch", "weight_decay", "optimiser")}
    described = FederationRecipe(
        network=recipe.network.model_copy(update={"mode": "train"}),
        images=recipe.trained_on,
        normalise=recipe.normalise,
        federation=Federation(**who.model_dump(), **local, momentum=spec.momentum if spec.optimiser == "sgd" else 0.0),
        seed=recipe.seed,
    )
    *_, last = federation(described)
    return last.after


def federation(
    recipe: FederationRecipe, device: torch.device | str = "cpu", report: Callable[[int], None] = lambda done: None
) -> Iterator[Round]:
    """All rounds of the recipe, on `device`; those that are not there are trained now.

    One process trains at a time; others wait and find what it left. report: is told how many rounds are there, before
    the first one is trained and after each. Fault names a file that is damaged.
    """
    data, model = _start(recipe, device)
    folder = _folder(recipe, model, data)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")), repeatable():
        _train(recipe, model, data, folder, report)
    return _stored(recipe, model, folder)


def record(recipe: FederationRecipe) -> dict[str, Any]:
    """What is told of a federated training: who held what, who took part in which round, and what came out.

    share, sizes, missing_classes: the coverage of the partition, see `data/partition.py`.
    """
    data, model = _start(recipe, "cpu")
    lived = list(federation(recipe))
    return {
        "recipe": _folder(recipe, model, data).name,
        "sha256": state_sha(lived[-1].after),
        "taking_part": [list(one.clients) for one in lived],
        **asdict(_spread(recipe, data)[1]),
    }


def folder_of(recipe: FederationRecipe) -> Path:
    """Where its rounds lie."""
    data, model = _start(recipe, "cpu")
    return _folder(recipe, model, data)


def holdings(recipe: FederationRecipe) -> list[list[int]]:
    """How many images of each class each client holds: (clients, classes)."""
    parts = _spread(recipe, _start(recipe, "cpu")[0])[0]
    classes = dataset_of(recipe.images).classes
    return [torch.bincount(part.labels, minlength=classes).tolist() for part in parts]


@torch.no_grad()
def measured(recipe: FederationRecipe, on: Images) -> list[dict[str, float]]:
    """Accuracy and mean cross-entropy (nats) on these images before the first round (round 0) and after each."""
    images, labels = select(on).take()
    model = _start(recipe, "cpu")[1].eval()
    found = []
    for number, state in enumerate([state_of(model), *(one.after for one in federation(recipe))]):
        model.load_state_dict(state)
        logits = torch.cat([model(part) for part in images.split(AT_ONCE)])
        right, loss = (logits.argmax(1) == labels).double().mean(), nn.functional.cross_entropy(logits, labels)
        found.append({"round": number, "accuracy": float(right), "loss": float(loss)})
    return found


def _start(recipe: FederationRecipe, device: torch.device | str) -> tuple[Held, nn.Module]:
    """All images of the clients, and the network before the first round."""
    images, labels = select(recipe.images).take()
    model = drawn(recipe.network, recipe.images, recipe.normalise, recipe.seed).train(recipe.network.mode == "train")
    return Held(images.to(device), labels.to(device)), model.to(device)


def _folder(recipe: FederationRecipe, model: nn.Module, data: Held) -> Path:
    """Named by what was said, the very weights that it starts from and the very images."""
    held = state_sha({"images": data.images, "labels": data.labels})
    content = {**recipe.said(), "start": state_sha(model.state_dict()), "held": held}
    return root() / "build" / "federations" / digest(content)


def _spread(recipe: FederationRecipe, data: Held) -> tuple[list[Held], Coverage]:
    return spread(data, recipe.federation, recipe.federation.clients, seed_of("partition", recipe.seed))


def _train(recipe: FederationRecipe, model: nn.Module, data: Held, folder: Path, report: Callable[[int], None]) -> None:
    """Train the rounds that are not there, from the last one that is."""
    spec, first = recipe.federation, 0
    while first < spec.rounds and _file(folder, first).exists():
        first += 1
    report(first)
    if first == spec.rounds:
        return
    current, loss = copy.deepcopy(model), nn.CrossEntropyLoss()
    if first:
        current.load_state_dict(_read(_file(folder, first - 1), state_of(model))[0])
    clients = [honest(part, spec, loss) for part in _spread(recipe, data)[0]]
    rng, rule = derived("federation", recipe.seed), rule_named(spec.rule)
    for lived in rounds(current, clients, rule, rng, Plan(range(first, spec.rounds), spec.share)):
        log.save(_file(folder, lived.number), lived)
        report(lived.number + 1)


def _stored(recipe: FederationRecipe, model: nn.Module, folder: Path) -> Iterator[Round]:
    before = state_of(model)
    for number in range(recipe.federation.rounds):
        after, messages = _read(_file(folder, number), before)
        yield Round(number, before, messages, after, messages)
        before = after


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.safetensors"


def _read(path: Path, like: State) -> tuple[State, tuple[Message, ...]]:
    """The model after a round and its messages, on the device of `like`."""
    try:
        kept = log.load(path)
        after = fitting(kept.after, like, f"{path}: after")
        fitted = ((one, fitting(one.state, like, f"{path}: {one.client}")) for one in kept.messages)
        return after, tuple(Message(one.client, state, one.images) for one, state in fitted)
    except ValueError as error:
        raise Fault(f"{path} is damaged ({error}), expected one round; without it, it is trained again") from error
