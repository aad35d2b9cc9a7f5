"""Weights that were trained once, damaged: each is one clear line, and nothing is trained over what is there."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
import torch
from bad_inputs.damages import FOLDER, LOOP, Damage, add, cut
from bad_inputs.suite import BENCHMARK, B, made, said_to
from safetensors.torch import load_file, save_file

RUN = "run toy toy_gradient --workers 0"
TRAINED = BENCHMARK.replace(
    "network: {name: lenet_sigmoid}",
    "network: {name: lenet_sigmoid, weights: trained}\n"
    "  training: {epochs: 1, learning_rate: 0.1, images: {start: 8, count: 64}}",
)


def _changed(change) -> Damage:
    def edit(path: Path) -> None:
        state = load_file(path)
        change(state)
        save_file(state, path)

    return edit


def _without_one(state: dict[str, torch.Tensor]) -> None:
    del state[sorted(state)[0]]


def _another_shape(state: dict[str, torch.Tensor]) -> None:
    first = sorted(state)[0]
    state[first] = state[first][:1].clone()


def _another_type(state: dict[str, torch.Tensor]) -> None:
    first = sorted(state)[0]
    state[first] = state[first].half()


WEIGHTS: dict[str, Damage] = {
    "empty": "", "text": "no weights", "cut off": cut(100), "longer": add(b"\0" * 9), "a folder": FOLDER,
    "without a layer": _changed(_without_one), "of another shape": _changed(_another_shape),
    "of another type": _changed(_another_type), "with a layer more": _changed(lambda s: s.update(more=torch.zeros(2))),
    "a pickle": b"\x80\x04.", "a huge header": b"\xff" * 64,
}  # fmt: skip
NOTES: dict[str, Damage] = {
    "empty": "", "a list": "[1]", "no JSON": "{", "without seconds": "{}", "binary": bytes(range(256)),
    "of words": '{"seconds": "long"}', "a folder": FOLDER, "a loop": LOOP,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A checkout whose victim is trained."""
    suite = made(tmp_path_factory.mktemp("weights") / "suite")
    (suite / B).write_text(TRAINED)
    with contextlib.chdir(suite):
        said = said_to(RUN, {})
    assert said.status == 0, said
    return suite


def damaged(trained: Path, folder: Path, ending: str, damage: Damage) -> tuple[Path, bytes]:
    """A copy of the checkout with one file beside the weights damaged: (that file, what it holds now)."""
    shutil.copytree(trained, folder / "suite")
    (path,) = (folder / "suite" / "build" / "recipes").glob(f"*{ending}")
    if callable(damage):
        damage(path)
    else:
        path.write_bytes(damage.encode() if isinstance(damage, str) else damage)
    return path, path.read_bytes() if path.is_file() else b""


@pytest.mark.parametrize(
    ("ending", "damage"),
    [
        *(pytest.param(".safetensors", one, id=f"weights {name}") for name, one in WEIGHTS.items()),
        *(pytest.param(".json", one, id=f"a note {name}") for name, one in NOTES.items()),
    ],
)
def test_damaged_weights_are_named_and_kept(ending, damage, trained, tmp_path):
    path, content = damaged(trained, tmp_path, ending, damage)
    with contextlib.chdir(tmp_path / "suite"):
        said = said_to(RUN, {})
    assert said.fault is None and said.status == 2, said
    lines = [line for line in said.text.splitlines() if line.startswith("error ")]
    assert len(lines) == 1 and path.name in lines[0] and "(internal" not in lines[0], said.text
    assert (path.read_bytes() if path.is_file() else b"") == content
