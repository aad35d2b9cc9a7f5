"""Code and images of one's own that are none: files of attacks, of networks, of pictures."""

from __future__ import annotations

from pathlib import Path

from bad_inputs.damages import DANGLING, FOLDER, LOOP, PIPE, ZEROS, Damage, instead, swap
from bad_inputs.suite import ATTACK, A, B, Case, P

RUN = "run mine.py toy_gradient --workers 0"
NETWORK = """\
from torch import nn


def network(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))
"""

ATTACKS: dict[str, tuple[Damage, str]] = {
    "empty": ("", "0 classes expected one"), "binary": (bytes(range(256)), ""), "NUL": (b"x = 1\0\n", "null bytes"),
    "no syntax": ("def (:\n", "syntax"),
    "Latin-1": ("x = 'é'\n".encode("latin-1"), "utf-8"), "UTF-16": (ATTACK.encode("utf-16"), ""),
    "no import": ("import no_such_module\n", "no_such_module"),
    "raises": ("raise ValueError('[red]oh[/red]')\n", "ValueError: [red]oh[/red]"),
    "exits with 0": ("import sys\nsys.exit(0)\n", "SystemExit"),
    "exits with 1": ("raise SystemExit(1)\n", "SystemExit"),
    "exits with a word": ("raise SystemExit('done')\n", "SystemExit done"),
    "interrupts": ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
    "ends a generator": ("raise GeneratorExit\n", "GeneratorExit"),
    "recurses": ("def f(): return f()\nf()\n", "RecursionError"),
    "many lines": ("raise ValueError('one\\ntwo\\nthree')\n", "one"),
    "two classes": (ATTACK + ATTACK.split("\n\n\n", 1)[1].replace("Toy", "Other"), "2 classes expected one"),
    "an unknown annotation": (ATTACK.replace("seen: Gradient", "seen: Gradients"), "Gradients"),
    "a function": ("def reconstruct(seen, rng): ...\n", "0 classes"),
    "a folder": (FOLDER, "mine.py"), "a pipe": (PIPE, "mine.py"), "a loop": (LOOP, "mine.py"),
    "dangling": (DANGLING, "mine.py"), "zeros": (ZEROS, "mine.py"),
    "prints markup": ("raise ValueError('[/]')\n", "[/]"),
    "surrogates": ("raise ValueError('\\udcff')\n", "ValueError"),
    "ESC": ("raise ValueError('\\x1b[2J')\n", "ValueError: [2J"),
    "a foreign exit": ("import typer\nraise typer.Exit(0)\n", "Exit"),
    "a signal": ("raise TimeoutError('late')\n", "TimeoutError late"),
}  # fmt: skip
CLASSES: dict[str, tuple[str, str]] = {
    "no annotation": (ATTACK.replace("seen: Gradient", "seen"), "Toy seen"),
    "another annotation": (ATTACK.replace("seen: Gradient", "seen: int"), "Toy seen int"),
    "a field without default": (ATTACK.replace("level: float = 0.5", "level: float"), "Toy level"),
    "no dataclass": (ATTACK.replace("level: float = 0.5", "def __init__(self, level): ..."), "Toy level"),
}
SETTINGS: dict[str, tuple[str, str]] = {
    "unknown": ("{depth: 1}", "depth level"), "a word": ("{level: high}", "level 'high'"),
    "a number as a word": ("{level: '0.5'}", "level '0.5'"),
    "a flag": ("{level: true}", "level True"), "a list": ("{level: [0.5]}", "level [0.5]"),
    "nothing": ("{level: null}", "level None"),
}  # fmt: skip


def _npz(**arrays: object) -> Damage:
    def write(path: Path) -> None:
        import numpy as np

        np.savez(path, **arrays)  # type: ignore[arg-type]

    return write


def _picture(path: Path) -> None:
    from PIL import Image

    Image.new("L", (8, 8)).save(path)


IMAGES: dict[str, tuple[Damage, str]] = {
    "empty": ("", "own.npz"), "text": ("text", "own.npz"), "half a zip": (b"PK\x03\x04", "own.npz"),
    "objects": (_npz(images=[None], labels=[0]), "own.npz"),
    "no labels": (_npz(images=[[[0.0]]]), "labels"),
    "labels of words": (_npz(images=[[[0.0]], [[1.0]]], labels=["a", "b"]), "labels"),
    "bright": (_npz(images=[[[0.0]], [[2.0]]], labels=[0, 1]), "2"),
    "nan": (_npz(images=[[[float("nan")]], [[1.0]]], labels=[0, 1]), "nan"),
    "a folder": (FOLDER, "own.npz"), "a pipe": (PIPE, "own.npz"), "a loop": (LOOP, "own.npz"),
    "dangling": (DANGLING, ""), "zeros": (ZEROS, ""),
}  # fmt: skip
NETWORKS: dict[str, tuple[Damage, str]] = {
    "empty": ("", "network"), "raises": ("raise ValueError('oh')\n", "ValueError oh"),
    "exits with 0": ("import sys\nsys.exit(0)\n", "SystemExit"),
    "exits in the function": ("import sys\ndef network(shape, classes): sys.exit(0)\n", "SystemExit"),
    "a folder": (FOLDER, "exist"), "a pipe": (PIPE, "exist"),
    "a loop": (LOOP, "own.py"), "binary": (bytes(range(256)), "own.py"),
    "wrong logits": (NETWORK.replace("classes))", "classes + 1))"), "11"),
    "many lines": ("raise ValueError('one\\ntwo')\n", "one two"),
}  # fmt: skip
UPWARDS = instead(lambda path: path.symlink_to(".."))
PICTURES: dict[str, dict[str, Damage]] = {
    "no class": {"own/.keep": ""}, "one class": {"own/a/1.png": _picture},
    "no picture": {"own/a/1.png": "text", "own/b/1.png": "text"},
    "a pipe among them": {"own/a/1.png": _picture, "own/b/1.png": PIPE},
    "a loop among them": {"own/a/1.png": _picture, "own/b/1.png": LOOP},
    "zeros among them": {"own/a/1.png": _picture, "own/b/1.png": ZEROS},
    "folders in folders": {"own/a/b/c/1.png": _picture, "own/d/1.png": _picture},
    "two ways round": {"own/a/1.png": _picture, "own/a/x": UPWARDS, "own/a/y": UPWARDS},
    "a file for a folder": {"own": "text"}, "dangling": {"own/a/1.png": _picture, "own/b/1.png": DANGLING},
}  # fmt: skip

CASES = {
    **{
        f"an attack that is {name}": Case(RUN, {"mine.py": damage}, ("mine.py", *says.split()))
        for name, (damage, says) in ATTACKS.items()
    },
    **{
        f"a class with {name}": Case(RUN, {"mine.py": text}, tuple(says.split()))
        for name, (text, says) in CLASSES.items()
    },
    **{
        f"a paper's attack that is {name}": Case(
            "reproduce toy --workers 0 --fresh --out {outside}/out",
            {A: damage},
            ("attack.py", *says.replace("mine.py", "attack.py").split()),
        )
        for name, (damage, says) in ATTACKS.items()
        if name
        in ("empty", "no syntax", "exits with 0", "a folder", "a pipe", "zeros", "binary", "a loop", "dangling", "NUL")
    },
    **{
        f"a setting that is {name}": Case(
            "run toy toy_gradient --workers 0", {P: swap("{level: 0.5}", value)}, tuple(says.split())
        )
        for name, (value, says) in SETTINGS.items()
    },
    **{
        f"images that are {name}": Case(
            "run toy toy_gradient --workers 0",
            {"own.npz": damage, B: swap("{name: digits}", "{file: own.npz}")},
            tuple(says.split()),
        )
        for name, (damage, says) in IMAGES.items()
    },
    **{
        f"a network that is {name}": Case(
            "run toy toy_gradient --workers 0",
            {"own.py": damage, B: swap("{name: lenet_sigmoid}", "{file: own.py}")},
            ("own.py", *says.split()),
        )
        for name, (damage, says) in NETWORKS.items()
    },
    **{
        f"pictures: {name}": Case(
            "run toy toy_gradient --workers 0", {**files, B: swap("{name: digits}", "{folder: own}")}, ("own",)
        )
        for name, files in PICTURES.items()
    },
    "no such attack": Case("run nobody toy_gradient", {}, ("nobody", "toy")),
    "a path to no attack": Case("run no/such/file.py toy_gradient", {}, ("no/such/file.py", "toy")),
}
