"""The victim's network for one trial."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from leakboard.config import Benchmark
from leakboard.data.weights import weights_file
from leakboard.models import build, form, normalised, uniform_
from leakboard.recipes.classifier import load_trained
from leakboard.rng import generator, seeded
from leakboard.victim.secrets import shape_and_classes


def network(benchmark: Benchmark, trial: int) -> nn.Module:
    """Fresh: a new draw for every trial. Trained: the recipe's one network. Pretrained: public weights, verified."""
    spec = benchmark.network
    draw = trial if spec.weights == "fresh" else 0
    shape, classes = shape_and_classes(benchmark)
    with seeded("network", benchmark.seed, draw):
        model = build(spec.name, shape, classes, spec.width)
    model = form(model, spec.bias, spec.batch_norm, spec.dropout)
    if spec.init == "uniform":
        uniform_(model, generator("uniform", benchmark.seed, draw))
    if spec.weights == "pretrained":
        model.load_state_dict(_public_weights(f"{spec}_{benchmark.data.name}"))
    if spec.features is not None:
        _load_features(model, spec.features)
    model = normalised(model, benchmark.normalise)
    if spec.weights == "trained":
        model = load_trained(model, benchmark)
    return model.train(spec.mode == "train")


def _public_weights(name: str) -> dict[str, Tensor]:
    content = torch.load(weights_file(name), map_location="cpu", weights_only=True)
    state = content.get("state_dict", content)
    return {key.removeprefix("module."): value for key, value in state.items()}


def _load_features(model: nn.Module, name: str) -> None:
    """The layers that the file has get its weights and are held fixed; ValueError if it has none of them."""
    own = model.state_dict()
    found = {key: v for key, v in _public_weights(name).items() if key in own and own[key].shape == v.shape}
    if not found:
        raise ValueError(f"the weights {name!r} fit no layer of {type(model).__name__}")
    model.load_state_dict(found, strict=False)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(key not in found)
