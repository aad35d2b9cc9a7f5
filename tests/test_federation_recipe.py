"""A federated training is kept: found again, taken up where it stopped with the same bits, trained by one process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import ROOT, checkout

from leakboard.config.recipes import Classifier
from leakboard.errors import Fault
from leakboard.federation import rounds as loop
from leakboard.recipes import federation as kept
from leakboard.recipes import trained
from leakboard.recipes.classifier import state_sha
from leakboard.recipes.federation import FederationRecipe, federation, record

RECIPE: dict[str, Any] = {
    "network": {"name": "lenet_relu", "mode": "train"},
    "images": {"name": "digits", "count": 60},
    "seed": 5,
    "federation": {"clients": 4, "rounds": 4, "learning_rate": 0.05, "batch": 8, "share": 0.5},
}
RECIPE["federation"] |= {"partition": "dirichlet", "beta": 1.0}
# Another process: trains the recipe, writes down every round that it trained, and dies before round `fate` is kept.
PROCESS = """
import os, sys
from leakboard.recipes import federation as kept
from leakboard.recipes import trained
from leakboard.run import machine
machine.settle()
recipe = kept.FederationRecipe.model_validate_json(sys.argv[1])
write = kept.log.save
def noted(path, lived):
    if lived.number == int(sys.argv[2]):
        os._exit(9)
    with open("trained", "a") as file:
        file.write(f"{os.getpid()} {lived.number}\\n")
    write(path, lived)
kept.log.save = noted
print(*[kept.state_sha(one.after) for one in kept.federation(recipe)])
"""


@pytest.fixture
def suite(tmp_path, monkeypatch) -> Path:
    folder = checkout(tmp_path / "suite", "")
    monkeypatch.chdir(folder)
    return folder


def recipe(**more) -> FederationRecipe:
    return FederationRecipe.model_validate({**RECIPE, **more})


def start(fate: int = -1) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", PROCESS, recipe().model_dump_json(), str(fate)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def all_of(lived: Iterable[loop.Round]) -> list[tuple]:
    """Everything that rounds hold, as (number, before, after, messages)."""

    def sent(one: loop.Round) -> list[tuple[int, int, str]]:
        return [(message.client, message.images, state_sha(message.state)) for message in one.messages]

    return [(one.number, state_sha(one.before), state_sha(one.after), sent(one)) for one in lived]


def files(suite: Path) -> list[Path]:
    return sorted((suite / "build" / "federations").glob("*/*.safetensors"))


def test_rounds_are_kept_as_they_were_lived_and_found_again(suite, monkeypatch):
    lived = []
    write = kept.log.save
    monkeypatch.setattr(kept.log, "save", lambda path, one: (lived.append(one), write(path, one)))
    first = all_of(federation(recipe()))
    assert first == all_of(lived) and len(files(suite)) == 4 and len(first) == 4
    assert all_of(federation(recipe())) == first and len(lived) == 4, "found, not trained again"
    assert all(len(one.messages) == 2 and one.received is one.messages for one in federation(recipe()))
    logged = kept.log.read(files(suite)[0].parent)
    assert [state_sha(one.before) for one in logged] == [one[1] for one in first], "checkpoints are a log, too"
    afters, befores = [one[2] for one in first], [one[1] for one in first]
    assert befores[1:] == afters[:-1] and len({*befores, *afters}) == 5
    other = all_of(federation(recipe(seed=6)))
    assert len(files(suite)) == 8 and other[0][1] != first[0][1]


def test_a_killed_training_goes_on_with_the_same_bits(suite, monkeypatch):
    killed = start(fate=2)
    killed.communicate()
    assert killed.returncode == 9 and [path.stem for path in files(suite)] == ["00000", "00001"]
    (files(suite)[0].parent / "00002.part").write_bytes(b"half a round")
    again = [one[2] for one in all_of(federation(recipe()))]
    assert [path.stem for path in files(suite)] == ["00000", "00001", "00002", "00003"]
    assert not list(suite.rglob("*.part"))
    for path in files(suite):
        path.unlink()
    whole = start()
    assert whole.communicate()[0].split() == again and whole.returncode == 0
    assert (suite / "trained").read_text().split()[1::2] == ["0", "1", "0", "1", "2", "3"]


def test_two_processes_train_once(suite):
    both = [start(), start()]
    said = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0] and said[0] == said[1] and len(said[0]) == 4
    lines = (suite / "trained").read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["0", "1", "2", "3"] and len({line.split()[0] for line in lines}) == 1


def test_the_record_tells_who_held_what_and_who_took_part(suite):
    found = record(recipe())
    lived = list(federation(recipe()))
    assert found["taking_part"] == [list(one.clients) for one in lived]
    assert found["share"] == 1 and sum(found["sizes"]) == 60 and len(set(found["sizes"])) > 1
    assert {message.images for one in lived for message in one.messages} <= set(found["sizes"])
    assert found["sha256"] == state_sha(lived[-1].after) and found["recipe"] == files(suite)[0].parent.name
    split = {**RECIPE["federation"], "partition": "label", "groups": [[0], [1], [2, 3], [4, 5, 6]], "beta": None}
    partly = record(recipe(federation=split))
    assert partly["missing_classes"] == (7, 8, 9) and 0 < partly["share"] < 1


@pytest.mark.parametrize("damage", ["cut", "another network"])
def test_a_damaged_round_is_refused_by_name(suite, damage):
    list(federation(recipe()))
    path = files(suite)[2]
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    else:
        state = {"more": torch.zeros(1)}
        kept.log.save(path, loop.Round(2, state, (), state, ()))
    with pytest.raises(Fault, match=r"00002\.safetensors is damaged \(.+\), expected one round"):
        list(federation(recipe()))


def test_a_federation_starts_from_weights_that_nobody_trained():
    with pytest.raises(ValueError, match="fresh or pretrained"):
        recipe(network={"name": "lenet_relu", "weights": "trained"})


def federated(**more) -> Classifier:
    """A benchmark's victim that clients have trained."""
    training = {"epochs": 1, "batch": 8, "learning_rate": 0.05, "weight_decay": 0.0, "augment": False}
    described = {
        "network": {"name": "lenet_relu"},
        "training": training | {"images": {"count": 60}, "federated": {"clients": 4, "rounds": 3}} | more,
        "data": {"name": "digits"},
        "seed": 5,
    }
    return Classifier.model_validate(described)


def test_a_federated_victim_is_the_last_round_of_its_federation(suite):
    state = trained._train(federated(), "cpu")
    folder = files(suite)[0].parent
    same = recipe(federation={"clients": 4, "rounds": 3, "learning_rate": 0.05, "batch": 8, "momentum": 0.9})
    rounds = list(federation(same))
    assert kept.folder_of(same) == folder and state_sha(state) == state_sha(rounds[-1].after)
    adam = trained._train(federated(optimiser="adam"), "cpu")
    assert state_sha(adam) != state_sha(state) and len(files(suite)) == 6
    assert federated().hash != federated(federated=None).hash


@pytest.mark.parametrize("key, value", [("augment", True), ("noise", 0.1), ("epochs", 0)])
def test_what_clients_do_not_do_is_refused(key, value):
    with pytest.raises(ValueError, match="`federated` goes with `augment: false` and epochs"):
        federated(**{key: value})
