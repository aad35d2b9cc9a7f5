"""A classifier before any training: a network's section of a benchmark as a module. The one place where it is built."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from leakboard.config.sections import Images, Network, Normalise
from leakboard.data.loading import dataset_of
from leakboard.data.weights import weights_file
from leakboard.models import build, form, in_precision, normal_, normalised, uniform_, zeros_
from leakboard.rng import generator, seeded


def drawn(
    spec: Network,
    data: Images,
    normalise: Literal["none", "imagenet"] | Normalise,
    seed: int,
    draw: int = 0,
    further: int = 0,
) -> nn.Module:
    """The network for images (B, C, H, W) in [0, 1] of `data` and their classes, as (seed, draw) initialises it.

    further: outputs beside those of the classes, and beside those that `spec` has further. With public weights where
    `spec` names some: all of them, or those of `features`, which are held fixed.
    """
    images = dataset_of(data)
    with seeded("network", seed, draw):
        model = build(spec.name or spec.file, images.shape, images.classes + spec.further + further, spec.width)
    model = form(model, spec.bias, spec.batch_norm, spec.dropout)
    if spec.init == "uniform":
        uniform_(model, generator("uniform", seed, draw))
    if spec.init == "normal":
        normal_(model, generator("normal", seed, draw))
    if spec.init == "zeros":
        zeros_(model)
    if spec.weights == "pretrained":
        model.load_state_dict(_public_weights(public_weights_of(spec, data)))
    if spec.features is not None:
        _load_features(model, spec.features)
    return in_precision(normalised(model, normalise), spec.precision)


def public_weights_of(spec: Network, data: Images) -> str:
    """What the public weights of this network for this data set are called."""
    return f"{spec}_{data.title}"


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
