"""What a malicious server sends out, as a description that its victim can build: public forms and their weights.

A crafted model leaves the attack's process as words and arrays. Three forms there are: the network itself with other
weights, an imprint block in front of it, and a chain of PyTorch's plain layers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from leakboard.attack.imprint import Imprint
from leakboard.attack.wire import words

# layer -> the arguments that it is built with, read off its attributes
LAYERS: dict[str, tuple[str, ...]] = {
    "Linear": ("in_features", "out_features"),
    "Conv2d": ("in_channels", "out_channels", "kernel_size", "stride", "padding"),
    "Flatten": (), "ReLU": (), "Sigmoid": (), "Tanh": (), "Identity": (), "Softmax": ("dim",),
    "AvgPool2d": ("kernel_size", "stride"), "MaxPool2d": ("kernel_size", "stride"),
}  # fmt: skip
MOST = 2**28  # numbers in one array; what is larger is no honest network
MOST_LAYERS = 256


def described(model: nn.Module, base: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(form, state dict) of what was crafted from `base`; ValueError when it has none of the public forms."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"craft returned a {type(model).__name__}, expected a Module")
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        raise ValueError("craft returned a model with hooks, which do not leave its process")
    state = {key: value.detach() for key, value in model.state_dict().items()}
    if type(model) is Imprint:
        shape = [int(side) for side in model.shape]
        return {"form": "imprint", "shape": shape, "bins": len(model.limits), "connection": model.connection}, state
    if type(model) is type(base) and _shapes(state) == _shapes(base.state_dict()):
        return {"form": "model"}, state
    if type(model) is nn.Sequential:
        if len(set(map(id, model))) < len(model):
            raise ValueError("craft returned a layer that stands in two places")
        form = {"form": "layers", "layers": [_layer(child) for child in model]}
        if repr(_layers(form, base)) != repr(model) or any(part.dtype != torch.float32 for part in state.values()):
            raise ValueError("craft returned layers with arguments or types that their description does not hold")
        return form, state
    raise ValueError(f"craft returned a {type(model).__name__}, which is none of: {', '.join(FORMS)}")


def built(form: Mapping[str, Any], state: Mapping[str, Tensor], base: nn.Module) -> nn.Module:
    """The crafted model on the victim's side, in the mode of `base`; ValueError when words and weights do not fit."""
    make = FORMS.get(str(form.get("form")))
    if make is None:
        raise ValueError(f"no form {form.get('form')!r}; there are: {', '.join(FORMS)}")
    if any(tensor.numel() > MOST for tensor in state.values()):
        raise ValueError("a crafted model with an array of more than 2^28 numbers")
    try:
        model = make(form, copy.deepcopy(base))
        model.load_state_dict(dict(state))
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"the crafted model cannot be built: {words(error)}") from None
    return model.train(base.training)


@torch.no_grad()
def refuse_misfit(model: nn.Module, base: nn.Module, shape: tuple[int, ...]) -> None:
    """ValueError unless the model makes of images (B, *shape) what `base` makes of them, finite logits."""
    images = torch.full((2, *shape), 0.5)
    try:
        wanted, got = copy.deepcopy(base).cpu()(images), copy.deepcopy(model).cpu()(images)
    except Exception as error:
        raise ValueError(f"the crafted model does not take the victim's images: {words(error)}") from None
    if not isinstance(got, Tensor) or got.shape != wanted.shape or not torch.isfinite(got).all():
        given = tuple(getattr(got, "shape", ()))
        raise ValueError(f"the crafted model gives {given}, expected finite {tuple(wanted.shape)}")
    if not list(model.parameters()):
        raise ValueError("the crafted model has no parameter")


def _imprint(form: Mapping[str, Any], base: nn.Module) -> nn.Module:
    shape, bins = torch.Size([int(side) for side in form["shape"]]), int(form["bins"])
    if form["connection"] not in ("linear", "add", "cat", "softmax") or not 2 <= bins <= 2**20:
        raise ValueError(f"no imprint block of {bins} bins with the connection {form['connection']!r}")
    return Imprint(base, torch.zeros(shape.numel()), torch.arange(bins).float(), shape, 1.0, form["connection"], False)


def _layer(module: nn.Module) -> list[Any]:
    name = type(module).__name__
    if name not in LAYERS or type(module) is not getattr(nn, name):
        raise ValueError(f"craft returned a layer {name}, expected one of: {', '.join(LAYERS)}")
    arguments = {argument: getattr(module, argument) for argument in LAYERS[name]}
    return [name, arguments, getattr(module, "bias", None) is not None]


def _layers(form: Mapping[str, Any], base: nn.Module) -> nn.Module:
    built = []
    if len(form["layers"]) > MOST_LAYERS:
        raise ValueError(f"{len(form['layers'])} layers, expected {MOST_LAYERS} at most")
    for name, arguments, bias in form["layers"]:
        if name not in LAYERS or set(arguments) != set(LAYERS[name]):
            raise ValueError(f"no layer {name!r} with {sorted(arguments)}")
        plain = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
        named = {"bias": bool(bias)} if name in ("Linear", "Conv2d") else {}
        with torch.random.fork_rng(devices=[]):
            built.append(getattr(nn, name)(**plain, **named))
    return nn.Sequential(*built)


FORMS: dict[str, Callable[[Mapping[str, Any], nn.Module], nn.Module]] = {
    "model": lambda form, base: base, "imprint": _imprint, "layers": _layers,
}  # fmt: skip


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}
