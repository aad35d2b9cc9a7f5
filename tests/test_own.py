"""Networks of one's own, what files of one's own do to a question, and that CONTRIBUTING's way to add things works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from test_cli import call
from test_own_images import arrays, picture, pictures, pixels
from torch import nn
from toys import ROOT, question

from leakboard.config import Images, Network, root
from leakboard.config.own import fingerprint
from leakboard.config.sections import Normalise
from leakboard.data.loading import dataset, dataset_of
from leakboard.models import build, normalised
from leakboard.models.own import NetworkError
from leakboard.record import trial_lines
from leakboard.rng import seeded

LINEAR = """
from torch import nn


def network(shape, classes, width=4):
    inside = shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(inside, width), nn.Sigmoid(), nn.Linear(width, classes))
"""
OWN_CLASS = """
from torch import nn


class Mine(nn.Linear):
    def forward(self, images):
        return super().forward(images.flatten(1))


def network(shape, classes):
    return Mine(shape[0] * shape[1] * shape[2], classes)
"""
IDLE = (
    LINEAR.replace("return nn", "made = nn")
    + """
    made.register_parameter("idle", nn.Parameter(made[1].weight.detach().clone()))
    return made
"""
)


def file(folder: Path, text: str) -> Path:
    (folder / "mine.py").write_text(text)
    return folder / "mine.py"


def drawn(path: Path, width: int | None = None) -> nn.Module:
    with seeded("own", 1):
        return build(path, (1, 4, 4), 3, width)


def test_a_file_is_a_network_and_its_draw_is_the_seeds(tmp_path):
    """The first network of a process is as the others: what a file draws while it is loaded moves no seed."""
    loud = file(tmp_path, "import torch\ntorch.manual_seed(0)\n" + LINEAR)
    first, second = drawn(loud), drawn(loud)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with seeded("own", 2):
        assert not torch.equal(build(loud, (1, 4, 4), 3)[1].weight, first[1].weight)
    assert type(first) is nn.Sequential and first.training and first(torch.rand(2, 1, 4, 4)).shape == (2, 3)
    assert drawn(loud, 7)[1].out_features == 7


# the file's text -> what the message names
FAULTS = {
    "syntax": ("def network(", ("cannot be imported", "SyntaxError")),
    "import": ("import nothing_of_this_name", ("cannot be imported", "nothing_of_this_name")),
    "no function": ("net = 1", ("no function `network`", "network(shape, classes)")),
    "arguments": ("def network(shape): ...", ("network(shape)", "expected network(shape, classes)")),
    "raises": ("def network(shape, classes): raise KeyError('oh')", ("raised KeyError", "oh")),
    "no module": ("def network(shape, classes): return 3", ("returned int", "torch.nn.Module")),
    "logits": (LINEAR.replace("width, classes)", "width, 4)"), ("(2, 4)", "expected logits (2, 3)")),
    "images": (LINEAR.replace("Linear(inside", "Linear(9"), ("fails on images (2, 1, 4, 4)", "RuntimeError")),
    "idle": (IDLE, ("no logit depends on idle", "no gradient")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_is_no_network_is_refused_by_name(name, tmp_path):
    text, named = FAULTS[name]
    with pytest.raises(NetworkError) as caught:
        drawn(file(tmp_path, text))
    assert [word for word in ("mine.py", *named) if word not in str(caught.value)] == [], caught.value


def test_other_networks_that_are_none(tmp_path):
    with pytest.raises(NetworkError, match=r"gone.py does not exist"):
        drawn(tmp_path / "gone.py")
    with pytest.raises(NetworkError, match=r"network\(shape, classes\), expected network\(shape, classes, width\)"):
        drawn(file(tmp_path, OWN_CLASS), 7)
    with pytest.raises(NetworkError, match=r"unknown network 'mine'; there are: .*lenet"):
        build("mine", (1, 4, 4), 3)


def test_a_network_can_be_sent_to_a_process_that_never_loaded_its_file(tmp_path):
    """And one whose file has changed meanwhile is refused."""
    path, sent = file(tmp_path, OWN_CLASS), tmp_path / "sent"
    network, images = drawn(path), torch.rand(2, 1, 4, 4)
    torch.save((network, images), sent)
    code = f"import torch; network, x = torch.load({str(sent)!r}, weights_only=False); print(network(x).tolist())"

    def other() -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert other().stdout.strip() == str(network(images).tolist())
    file(tmp_path, OWN_CLASS + "\n")
    assert "mine.py is no longer what it was" in other().stderr
    assert torch.equal(network(images), network(images)) and type(drawn(path)) is not type(network)


def test_mean_and_deviation_stand_in_front(tmp_path):
    network, images = drawn(file(tmp_path, OWN_CLASS)), torch.rand(2, 1, 4, 4)
    front = normalised(network, Normalise(mean=(0.5,), std=(0.25,)))
    assert torch.equal(front(images), network((images - 0.5) / 0.25))
    assert normalised(network, "none") is network
    for channels, kind in ((1, "imagenet"), (3, Normalise(mean=(0.5,), std=(0.25,)))):
        with pytest.raises(NetworkError, match=f"expected {channels}, as the images"):
            normalised(network, kind)(torch.rand(2, channels, 4, 4))


# ---------------------------------------------------------------------------------------------------------------------
# What a file holds is part of what is asked.


def test_a_changed_picture_changes_the_fingerprint_and_is_read_anew(tmp_path):
    folder = pictures(tmp_path / "mine", "a", "b")
    first, (old,) = fingerprint(folder), dataset_of(Images(folder=folder)).take([0])[0]
    (folder / ".hidden").write_text("x")
    (folder / "README.md").write_text("x")
    assert fingerprint(folder) == first and len(first) == 12
    status = (folder / "a" / "0.png").stat()
    picture(folder / "a" / "0.png", 77)
    os.utime(folder / "a" / "0.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint(folder) != first, "even where the time of change is put back"
    assert not torch.equal(dataset_of(Images(folder=folder)).take([0])[0][0], old)
    picture(folder / "a" / "0.png", 0)
    assert fingerprint(folder) == first
    (folder / "b" / "0.png").rename(folder / "b" / "9.png")
    assert fingerprint(folder) not in (first, "absent") and fingerprint(tmp_path / "nothing") == "absent"


@pytest.mark.parametrize("kind", ["folder", "file", "network"])
def test_a_question_is_told_by_what_its_files_hold_and_not_by_where_they_lie(kind, tmp_path):
    def asked(place: str, changed: bool):
        (tmp_path / place).mkdir()
        path = tmp_path / place / "mine"
        if kind == "network":
            path.write_text(LINEAR + "\n" * changed)
            return question(network={"file": str(path)})
        if kind == "folder":
            picture(pictures(path, "a", "b") / "b" / "3.png", 3 + changed)
        else:
            arrays(path.with_suffix(".npz"), images=pixels(12, 4, 4, seed=int(changed))).rename(path)
        return question(data={kind: str(path)}, public={"count": 2})

    first, elsewhere, changed = asked("here", False), asked("there", False), asked("third", True)
    assert first.hash == elsewhere.hash != changed.hash


# ---------------------------------------------------------------------------------------------------------------------
# CONTRIBUTING, followed word by word in a checkout of one's own.


def section(title: str, page: str = "CONTRIBUTING.md") -> str:
    text = (ROOT / page).read_text()
    return text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def block(text: str, language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found


def inline(text: str, key: str) -> list[dict]:
    """The values of `key: {...}` in the running text."""
    return [yaml.safe_load(line)[key] for line in re.findall(rf"`({key}: {{[^`]*}})`", text)]


def run(suite: Path, *words: str) -> str:
    end = subprocess.run(words, cwd=suite, capture_output=True, text=True)
    assert end.returncode == 0, end.stdout + end.stderr
    return end.stdout


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    """A checkout with what the sections have one write, and pictures where the first one shows them."""
    folder = tmp_path_factory.mktemp("suite")
    for name in ("baselines", "benchmarks", "datasets"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "dvc.lock"))
    for label in sorted(set(re.findall(r"^ {4}(pictures/\w+)/\d+\.", section("Add a data set"), re.MULTILINE))):
        for number in range(12):
            picture(folder / label / f"{number:03}.png", len(label) + number, (20, 24))
    (folder / "my_network.py").write_text(block(section("Add a network"), "python"))
    (folder / "my_attack.py").write_text(block(section("Add an attack", "README.md"), "python"))
    text = section("Add a benchmark")
    (name,) = set(re.findall(r"`(benchmarks/\w+\.yaml)`", text))
    (folder / name).write_text(block(text, "yaml"))
    return folder


@pytest.fixture
def here(suite, monkeypatch) -> Iterator[Path]:
    monkeypatch.chdir(suite)
    assert root() == suite
    yield suite


def test_add_a_data_set(here):
    text = section("Add a data set")
    run(here, sys.executable, "-c", block(text, "python"))
    folder, array = (Images.model_validate(one) for one in inline(text, "data"))
    train, test = (dataset_of(folder.model_copy(update={"split": split})) for split in ("train", "test"))
    assert (train.shape, train.classes, train.length, test.length) == ((1, 16, 16), 2, 18, 6)
    for split in ("train", "test"):
        mine, bundled = dataset_of(array.model_copy(update={"split": split})), dataset("digits", split)
        for one, other in zip(mine.take(mine.available), bundled.take(bundled.available), strict=True):
            assert torch.equal(one, other), "the file that is shown holds the digits, in the same order and splits"


def test_add_a_network(here):
    text = section("Add a network")
    (spec,), (normalise,) = inline(text, "network"), inline(text, "normalise")
    network = build(Network.model_validate(spec).file, (1, 9, 8), 5, 3)
    front = normalised(network, Normalise.model_validate(normalise))
    assert front(torch.rand(2, 1, 9, 8)).shape == (2, 5) and network[0].out_channels == 3


def test_add_a_benchmark(here):
    """The commands as they are shown: with workers, which load the network for themselves."""
    commands = re.findall(r"^ {4}leakboard (.*)$", section("Add a benchmark"), re.MULTILINE)
    console = str(Path(sys.executable).with_name("leakboard"))
    said = [run(here, console, *command.split()) for command in commands]
    assert len(said) == 2 and "controls / noise" in said[0] and "my_attack / default" in said[1]
    for name, rows in (("controls", 3), ("my_attack", 1)):
        lines = trial_lines.read(here / "build" / "runs" / name / "quick" / "mine_pictures_gradient" / "trials.csv")
        assert len(lines) == 2 * rows and set(lines["status"]) == {"ok"}


def test_a_benchmark_is_kept_until_a_file_of_it_changes(here):
    (command,) = re.findall(r"`leakboard (reproduce [^`]*)`", section("Add a benchmark"))
    (on,) = re.findall(r"`(mine_\w+: {})`", section("Add a benchmark"))
    params = here / "baselines" / "controls" / "params.yaml"
    params.write_text(f"{params.read_text().rstrip()}\n  {on}\n")

    def ran() -> str:
        code, said = call(*command.split(), "--workers", "0")
        assert code == 0, said
        return re.findall(r"\d+ trials run", said)[0]

    assert [ran(), ran()] == ["6 trials run", "0 trials run"]
    picture(here / "pictures" / "pears" / "004.png", 99, (20, 24))
    assert [ran(), ran()] == ["6 trials run", "0 trials run"]
    (here / "my_network.py").write_text((here / "my_network.py").read_text().replace("Sigmoid", "Tanh"))
    assert [ran(), ran()] == ["6 trials run", "0 trials run"]
