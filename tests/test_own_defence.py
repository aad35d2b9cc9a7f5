"""A defence of one's own: one function in one file, which a benchmark names by its path."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError
from test_cli import call
from test_defences import asked, leaked
from test_own import block, section
from toys import GRAY, ROOT, observed, toy, trial

from leakboard import config
from leakboard.config import ConfigError
from leakboard.record import trial_lines
from leakboard.victim.defences import defences_of
from leakboard.victim.defences.own import TAKES
from leakboard.victim.defences.points import POINTS

SIGNS = """
def message(tensors, rng, *, scale=1.0):
    return {name: scale * tensor.sign() for name, tensor in tensors.items()}
"""


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def file(folder: Path, text: str = SIGNS) -> str:
    (folder / "mine.py").write_text(text)
    return str(folder / "mine.py")


@pytest.mark.parametrize("sees", ["gradient", "update"])
def test_a_file_acts_with_its_settings_after_the_defences_that_are_known(sees, tmp_path):
    both = {"signs": {"file": file(tmp_path), "scale": 0.25}, "gaussian_noise": {"deviation": 10.0}}
    got = torch.cat([part.flatten() for part in leaked(asked(sees, both))])
    assert {round(abs(float(value)), 4) for value in got} <= {0.0, 0.25}, "noise first, then its signs"
    line = trial(toy(tmp_path, GRAY, "Gradient"), asked("gradient", both)).line
    assert line["status"] == "ok"


def test_the_source_is_part_of_what_is_asked_and_its_place_is_not(tmp_path):
    def hashed(place: str, text: str) -> tuple[str, str]:
        (tmp_path / place).mkdir()
        price = {"epochs": 1, "learning_rate": 0.1}
        one = asked("gradient", {"signs": {"file": file(tmp_path / place, text)}}, price=price)
        return one.hash, one.priced.hash

    first, elsewhere, changed = hashed("a", SIGNS), hashed("b", SIGNS), hashed("c", SIGNS + "\n")
    assert first == elsewhere and all(one != other for one, other in zip(first, changed, strict=True))


POINT = {
    "network": "def network(model, rng): return model",
    "local_step": "import torch\ndef local_step(model, loss, images, labels, rng):\n"
    "    return torch.autograd.grad(loss(model(images), labels), list(model.parameters()))",
    "message": "def message(tensors, rng): return dict(tensors)",
    "aggregate": "def aggregate(messages, rng): return messages",
    "answer": "def answer(confidences, rng): return confidences",
}


@pytest.mark.parametrize("point", TAKES)
def test_a_function_acts_at_the_point_of_its_name(point, tmp_path):
    """One that does nothing leaves every bit."""
    assert set(TAKES) == set(POINTS) == set(POINT)
    sees = {"answer": "released", "aggregate": "sequence"}.get(point, "update")
    defence = {"nothing": {"file": file(tmp_path, POINT[point])}}
    assert [name for name, act in defences_of(asked(sees, defence))._asdict().items() if act] == [point]
    if point == "answer":
        hidden, _, seen = observed(asked(sees, defence))
        assert torch.equal(seen.query(hidden.images), observed(asked(sees))[2].query(hidden.images))
    else:
        assert all(torch.equal(a, b) for a, b in zip(leaked(asked(sees, defence)), leaked(asked(sees)), strict=True))


def test_a_network_of_a_form_of_ones_own_reaches_the_attack(tmp_path):
    """Whose process has not loaded the file."""
    text = """
from torch import nn

class Halved(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, images):
        return self.inside(images) / 2

def network(model, rng):
    return Halved(model)
"""
    body = "assert type(seen.model).__name__ == 'Halved'\n" + GRAY
    line = trial(toy(tmp_path, body), asked("gradient", {"halved": {"file": file(tmp_path, text)}})).line
    assert line["status"] == "ok", line["reason"]


# the file's text -> what the message names
FAULTS = {
    "syntax": ("def message(", ("cannot be imported", "SyntaxError")),
    "import": ("import nothing_of_this_name", ("cannot be imported", "nothing_of_this_name")),
    "no function": ("massage = 1", ("no function of a point", "message(tensors, rng)")),
    "several": (SIGNS + POINT["answer"], ("defines message and answer", "expected one function")),
    "arguments": ("def message(tensors): ...", ("message(tensors)", "expected message(tensors, rng)")),
    "positional": ("def message(tensors, rng, scale=1): ...", ("expected message(tensors, rng), settings after *",)),
    "setting": ("def message(tensors, rng, *, size): ...", ("has no setting scale", "its settings: size")),
    "raises": ("def message(tensors, rng, *, scale): raise KeyError('oh')", ("raised KeyError", "oh")),
    "nothing": ("def message(tensors, rng, *, scale): ...", ("returned NoneType", "tensors of the same names")),
    "shapes": (
        "def message(tensors, rng, *, scale): return {k: v.flatten() for k, v in tensors.items()}", ("and shapes",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_is_no_defence_is_refused_by_name(name, tmp_path):
    text, named = FAULTS[name]
    with pytest.raises(ConfigError) as caught:
        observed(asked("gradient", {"signs": {"file": file(tmp_path, text), "scale": 0.25}}))
    wanted = ("defence.signs" if name == "setting" else "mine.py", *named)
    assert [word for word in wanted if word not in str(caught.value)] == [] and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("defence", "says"),
    [
        (
            {"signs": {"file": "gone.py"}},
            "gone.py does not exist; expected a file that defines one function of network",
        ),
        ({"clipping": {"file": "mine.py"}}, "defence.clipping is known and has no `file`"),
        ({"signs": {"scale": 1.0}}, "unknown signs"),
    ],
)
def test_what_names_no_file_is_refused_too(defence, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        observed(asked("gradient", defence))


@pytest.mark.parametrize("settings", [{"file": 3}, {"file": ""}, {"deviation": "mine.py"}, {"deviation": True}])
def test_a_path_stands_under_file_alone(settings):
    with pytest.raises(ValidationError, match="expected"):
        asked("gradient", {"gaussian_noise": settings})


def test_add_a_defence(tmp_path, monkeypatch):
    """CONTRIBUTING, followed word by word in a checkout of one's own."""
    for name in ("baselines", "benchmarks", "datasets"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "dvc.lock"))
    text = section("Add a defence")
    (tmp_path / "my_defence.py").write_text(block(text, "python"))
    (name,) = set(re.findall(r"`(benchmarks/\w+\.yaml)`", text))
    (tmp_path / name).write_text(block(text, "yaml"))
    (tmp_path / "my_attack.py").write_text(block(section("Add an attack", "README.md"), "python"))
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^ {4}leakboard (.*)$", text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        code, said = call(*command.split(), *(["--workers", "0"] if command.startswith("run") else []))
        assert code == 0, said
    board = Path(name).stem
    lines = trial_lines.read(tmp_path / "build" / "runs" / "my_attack" / "quick" / board / "trials.csv")
    assert set(lines["status"]) == {"ok"} and len(lines) == config.benchmark(board, "quick").trials
    record = yaml.safe_load((tmp_path / f"results/quick/papers/victims/{board}/price.json").read_text())
    assert 0 <= record["accuracy"] <= 1 and record["recipe"] == config.benchmark(board, "quick").priced.hash
