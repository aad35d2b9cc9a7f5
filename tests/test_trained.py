"""What trials need trained before they start: once each, by the workers, the same whoever trains it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from toys import ROOT, question, toy

from leakboard.recipes import store
from leakboard.recipes.classifier import classifier_of, evaluator_of
from leakboard.recipes.store import RecipeError
from leakboard.run import opened, trained
from leakboard.run.attacker import Attacker
from leakboard.run.workers import silent

TRAINING = {"epochs": 2, "learning_rate": 0.05, "augment": False}
ASKED = question(
    network={"name": "lenet_sigmoid", "weights": "trained"},
    training=TRAINING,
    evaluator={"network": {"name": "lenet_relu"}, "training": TRAINING},
)
BOTH = classifier_of(ASKED), evaluator_of(ASKED)


def needed(folder: Path, monkeypatch: pytest.MonkeyPatch, asked=ASKED):
    """Two attacks on one benchmark, in a checkout of its own at `folder`."""
    for name in ("benchmarks", "baselines"):
        (folder / name).mkdir(parents=True)
    monkeypatch.chdir(folder)
    attack = Attacker(toy(folder, "return Reconstruction(torch.zeros(seen.shape))"), {})
    return [(asked, attack, [0, 1])] * 2


def train(needs, workers=0, report=silent) -> None:
    opened.run_all([], trained.lacking(needs, "cpu"), workers, report)


def test_workers_train_each_recipe_once_and_to_the_same_bits(tmp_path, monkeypatch):
    told: list[tuple] = []
    weights = []
    for workers in (0, 2):
        train(needed(tmp_path / str(workers), monkeypatch), workers, lambda *state: told.append(state))
        weights.append([store.find(recipe).path.read_bytes() for recipe in BOTH])
    assert weights[0] == weights[1]
    assert [state[1:] for state in told] == [(1, 2, "", "recipes"), (2, 2, "", "recipes")] * 2


def test_what_is_there_is_not_trained_again(tmp_path, monkeypatch):
    needs = needed(tmp_path / "here", monkeypatch)
    assert [one.need.role for one in trained.lacking(needs, "cpu")] == ["victim", "evaluator"]
    train(needs)
    assert trained.lacking(needs, "cpu") == []


def test_a_training_that_comes_to_nothing_in_a_worker_is_named(tmp_path, monkeypatch):
    bad = question(
        network={"name": "lenet_relu", "weights": "trained"},
        training={**TRAINING, "learning_rate": 1e30},
        evaluator=ASKED.evaluator.model_dump(),
    )
    with pytest.raises(RecipeError, match=f"classifier {classifier_of(bad).hash}: trained to numbers that are not"):
        train(needed(tmp_path / "here", monkeypatch, bad), 2)
    assert store.find(classifier_of(bad)) is None


def kill(job: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_twice_ends_it_with_a_sentence(tmp_path, monkeypatch):
    needs = needed(tmp_path / "here", monkeypatch)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    monkeypatch.setattr(opened, "_work", kill)
    with pytest.raises(RecipeError, match=r"toy: the worker that trained the (victim|evaluator) .* was killed, twice"):
        train(needs, 2)


def test_the_machines_of_a_cluster_are_handed_weights(tmp_path, monkeypatch):
    needs = needed(tmp_path / "here", monkeypatch)
    monkeypatch.setattr(opened, "spread", lambda work, jobs, *rest: iter(()) if not jobs else pytest.fail(str(jobs)))
    train(needs, "ray")
    assert trained.lacking(needs, "cpu") == []
