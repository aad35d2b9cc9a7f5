"""Files of one's own, loaded by path: networks, and the module that any such file is.

A network is sent to processes that have not loaded its file, and what is sent there is the name of its class. So a file
becomes a module of this one, by a name that tells the file and the hash of what it must hold: whoever meets the name
finds the file again, and one that has changed meanwhile is refused.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from leakboard.config.own import place
from leakboard.errors import Fault
from leakboard.rng import seeded

__path__: list[str] = []  # the import system asks for modules inside of this one only if it looks like a package


class NetworkError(Fault, ValueError):
    """A network that does not exist or does not fit its images, or a file that defines none."""


class Finder:
    """Of the import system: `leakboard.models.own.<hash>_<path in hex>` is the file at that path."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        return importlib.machinery.ModuleSpec(name, self) if name.startswith(f"{__name__}.") else None  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the file, from its text and never from compiled code beside it, whose age is known to the second only."""
        sha, path = module.__name__.removeprefix(f"{__name__}.").split("_")
        file = Path(bytes.fromhex(path).decode())
        text = file.read_bytes()
        if _sha(text) != sha:
            raise ImportError(f"{file} is no longer what it was when the network was built")
        module.__file__ = str(file)
        with seeded("network file", sha):  # what a file draws while it is loaded is no part of a victim's draw
            exec(compile(text, file, "exec"), vars(module))


sys.meta_path.append(Finder())


def _sha(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def own_network(path: Path, shape: tuple[int, int, int], classes: int, width: int | None = None) -> nn.Module:
    """What `network(shape, classes)` of the file at `path` returns; with a width, `network(shape, classes, width)`.

    A relative path starts at the checkout. NetworkError names the file and what is wrong with it.
    """
    file = place(path)
    make, given = _function(file), (shape, classes) if width is None else (shape, classes, width)
    try:
        inspect.signature(make).bind(*given)
    except TypeError:
        called = "network(shape, classes)" if width is None else "network(shape, classes, width)"
        raise NetworkError(f"{file} defines network{inspect.signature(make)}, expected {called}") from None
    try:
        network = make(*given)
    except Exception as error:
        raise NetworkError(f"{file}: network{given} raised {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise NetworkError(f"{file}: network{given} returned {type(network).__name__}, expected a torch.nn.Module")
    _check(network, file, shape, classes)
    return network


def module_of(file: Path, defines: str, fault: type[Fault]) -> ModuleType:
    """A file as a module, which runs once for each of its states; `fault` where there is none that can be imported."""
    if not file.is_file():
        raise fault(f"{file} does not exist; expected a file that defines {defines}")
    try:
        return importlib.import_module(f"{__name__}.{_sha(file.read_bytes())}_{str(file).encode().hex()}")
    except Exception as error:
        raise fault(f"{file} cannot be imported: {type(error).__name__}: {error}") from error


def _function(file: Path) -> Callable[..., Any]:
    """The function `network` of a file."""
    make = getattr(module_of(file, "network(shape, classes)", NetworkError), "network", None)
    if not callable(make):
        raise NetworkError(f"{file} defines no function `network`, expected network(shape, classes)")
    return make


def _check(network: nn.Module, file: Path, shape: tuple[int, int, int], classes: int) -> None:
    """NetworkError unless two images give logits (2, classes) that every parameter has a part in."""
    images, parameters = torch.zeros(2, *shape), dict(network.named_parameters())
    training = network.training
    try:
        logits = network.eval()(images)
        if not isinstance(logits, Tensor) or logits.shape != (2, classes):
            found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise NetworkError(f"{file}: images {tuple(images.shape)} give {found}, expected logits (2, {classes})")
        free = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        slopes = torch.autograd.grad(logits.sum(), list(free.values()), allow_unused=True)
    except NetworkError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise NetworkError(f"{file}: the network fails on images {tuple(images.shape)}: {said}") from error
    finally:
        network.train(training)
    if idle := [name for name, slope in zip(free, slopes, strict=True) if slope is None]:
        raise NetworkError(
            f"{file}: no logit depends on {', '.join(idle)}; a parameter that nothing uses has no gradient"
        )
