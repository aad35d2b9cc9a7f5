"""Weights of what is trained once: found by the hash of their recipe, trained under a lock where they are missing.

They lie beside a record, committed, or in `build/recipes/`, each with a `.json` of the same name that tells the recipe,
the seconds of its training and the machine. What is there is never trained over, not even when it is damaged.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from leakboard.config import root
from leakboard.errors import Fault

State = dict[str, Tensor]
RECORD_LIMIT = 2_000_000  # bytes: weights up to this size are committed beside their record
THREADS = 1  # another number adds up in another order, and is another training


class RecipeError(Fault):
    """Weights that are damaged or do not fit, or a training that came to nothing; the message names the recipe."""


class Described(Protocol):
    """What the store asks of a recipe."""

    kind: ClassVar[str]

    @property
    def hash(self) -> str: ...

    def said(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Weights:
    """Where the weights of a recipe lie. seconds: of their training, None where nobody wrote them down. now: whether
    they were trained by the call that returns this, and not found.
    """

    recipe: str
    path: Path
    seconds: float | None
    now: bool = False


def folder() -> Path:
    """Where weights go that are trained here."""
    return root() / "build" / "recipes"


def find(recipe: Described, beside: Path | None = None) -> Weights | None:
    """The weights of a recipe, beside a record or in build/; None when they must be trained."""
    for place in ([] if beside is None else [beside]) + [folder()]:
        path = place / f"{recipe.hash}.safetensors"
        if path.exists():
            return Weights(recipe.hash, path, _seconds(path.with_suffix(".json")))
    return None


def obtain(
    recipe: Described, train: Callable[[], State], beside: Path | None = None, device: torch.device | str = "cpu"
) -> Weights:
    """The weights of a recipe, by `train` where they are nowhere. One process trains; others wait for it.

    RecipeError when a trained number is not finite: nothing is kept then.
    """
    if (found := find(recipe, beside)) is not None:
        return found
    folder().mkdir(parents=True, exist_ok=True)
    with FileLock(folder() / f"{recipe.hash}.lock"):
        if (found := find(recipe, beside)) is not None:
            return found
        with repeatable():
            started = _now(device)
            state = train()
            seconds = _now(device) - started
        if broken := [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]:
            raise RecipeError(f"{recipe.kind} {recipe.hash}: trained to numbers that are not finite, in {broken[0]}")
        path = folder() / f"{recipe.hash}.safetensors"
        _write(path, state, {"kind": recipe.kind, "recipe": recipe.said(), "seconds": seconds, **_machine(device)})
    return Weights(recipe.hash, path, seconds, now=True)


def load(path: Path, expected: Mapping[str, Tensor]) -> State:
    """The weights in a file, by name; RecipeError unless they are whole and fit `expected`, name by name."""
    advice = "It is not trained over: restore it (git, another machine) or delete it, and it is trained anew."
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RecipeError(f"{path}: no whole file of weights ({error}). {advice}") from None
    wrong = [f"no {name}" for name in expected if name not in state]
    wrong += [f"{name}, which no layer has" for name in state if name not in expected]
    for name in sorted(expected.keys() & state.keys()):
        found, wanted = (f"{tuple(one.shape)} {one.dtype}" for one in (state[name], expected[name]))
        if found != wanted:
            wrong.append(f"{name} of {found}, expected {wanted}")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise RecipeError(f"{path}: the weights do not fit: {'; '.join(wrong[:3])}{more}. {advice}")
    return state


def keep_small(recipes: Sequence[Described], beside: Path) -> None:
    """Copy the weights of these recipes, where small, beside their record; those of other recipes go from there."""
    found = [weights for recipe in recipes if (weights := find(recipe, beside)) is not None]
    small = {weights.path.stem: weights.path for weights in found if weights.path.stat().st_size <= RECORD_LIMIT}
    for old in beside.glob("*.safetensors"):
        if old.stem not in small:
            old.unlink()
            old.with_suffix(".json").unlink(missing_ok=True)
    for path in small.values():
        if path.parent != beside:
            beside.mkdir(parents=True, exist_ok=True)
            for source in (path.with_suffix(".json"), path):
                if source.exists():
                    shutil.copyfile(source, beside / f"{source.name}.part")
                    (beside / f"{source.name}.part").replace(beside / source.name)


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """One thread and deterministic kernels, whoever trains: the same recipe gives the same bits on one machine."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


def _write(path: Path, state: State, note: dict[str, Any]) -> None:
    """Whole or not at all; the weights last, since what has weights counts as trained."""
    text = json.dumps(note, indent=1, sort_keys=True, default=str) + "\n"
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path.with_suffix(".json"))
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, part)
    part.replace(path)


def _seconds(note: Path) -> float | None:
    try:
        return float(json.loads(note.read_text())["seconds"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{note}: expected JSON with the `seconds` of a training; {error!r}") from None


def _machine(device: torch.device | str) -> dict[str, Any]:
    kind = torch.device(device).type
    name = torch.cuda.get_device_name(device) if kind == "cuda" else platform.processor() or platform.machine()
    return {"device_kind": kind, "device": name, "torch": torch.__version__, "threads": THREADS}


def _now(device: torch.device | str) -> float:
    """Seconds, once the device has done what it was told."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
