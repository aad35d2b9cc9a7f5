"""What is trained once: hashes, the store, victims and evaluators, and that no prior has seen a victim."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest
import torch
from pydantic import ValidationError
from toys import ROOT, question

from leakboard import config
from leakboard.config import Images
from leakboard.config.recipes import Classifier, Degradation, Generator, Restorer
from leakboard.data import DataError
from leakboard.recipes import classifier, store
from leakboard.recipes.classifier import classifier_of, evaluator_of, state_sha
from leakboard.recipes.store import RecipeError
from leakboard.recipes.trained import lacking, provide, trained_evaluator, trained_prior, trained_victim
from leakboard.record import trial_lines
from leakboard.run import machine
from leakboard.victim.network import network
from leakboard.victim.secrets import victim_slice

DIGITS, HELD_OUT = Images(name="digits"), Images(name="digits", split="test")
TRAINING = {"epochs": 2, "learning_rate": 0.05, "augment": False}
TRAINED = {"network": {"name": "lenet_sigmoid", "weights": "trained"}, "training": TRAINING}
CLASSIFIED = {"network": {"name": "lenet_sigmoid"}, "training": TRAINING, "data": DIGITS, "seed": 7}


@pytest.fixture(autouse=True)
def _bare_checkout(tmp_path, monkeypatch):
    for name in ("benchmarks", "baselines"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# Hashes hold what differs from the defaults.


def test_writing_a_default_out_changes_no_hash():
    plain = Classifier(**CLASSIFIED)
    spelled = {"images": {"name": "digits", "split": "train", "start": 0}, "batch": 128, "momentum": 0.9, **TRAINING}
    network = {"name": "lenet_sigmoid", "init": "default", "bias": True, "dropout": 0.0}
    same = Classifier(network=network, training=spelled, data=HELD_OUT, normalise="none", seed=7)
    assert plain.hash == same.hash, "which of the data set's images are attacked is no part of the training"
    assert Generator(images=DIGITS).hash == Generator(images=DIGITS, penalty=10, form="wgan_gp", seed=0).hash
    blur = Degradation(blur=1.0)
    assert Restorer(images=DIGITS, degradation=blur).hash == Restorer(images=DIGITS, degradation=blur, width=32).hash


def test_what_differs_changes_the_hash():
    ways = [{"seed": 8}, {"data": Images(name="mnist")}, {"network": {"name": "lenet_relu"}}, {"normalise": "imagenet"}]
    ways += [{"training": {**TRAINING, **more}} for more in ({"epochs": 3}, {"images": {"count": 9}}, {"batch": 7})]
    assert len({Classifier(**{**CLASSIFIED, **way}).hash for way in ({}, *ways)}) == 8
    own = {"images": DIGITS}
    others = [{}, {"images": HELD_OUT}, {"noise": 7}, {"form": "dcgan"}, {"seed": 1}, {"critic_steps": 5}]
    assert len({Generator(**{**own, **way}).hash for way in others}) == 6
    assert Generator(**own).hash != Restorer(**own, degradation={"noise": 0.1}).hash


def test_a_victim_hash_is_no_matter_of_scale_name_or_trials():
    asked = question(**TRAINED)
    renamed = asked.model_copy(update={"name": "other", "scale": "paper", "trials": 9, "budget": 3})
    train_mode = question(**TRAINED | {"network": {**TRAINED["network"], "mode": "train"}})
    assert classifier_of(asked).hash == classifier_of(renamed).hash == classifier_of(train_mode).hash
    assert classifier_of(question()) is None and evaluator_of(asked) is None


def test_what_files_of_ones_own_hold_is_part_of_the_hash(tmp_path):
    (tmp_path / "mine.npz").write_bytes(b"one")
    (tmp_path / "net.py").write_text("")
    own = Images(file="mine.npz")
    recipes = [Generator(images=own), Classifier(**{**CLASSIFIED, "data": own})]
    recipes += [Classifier(**{**CLASSIFIED, "network": {"file": "net.py"}})]
    before = [recipe.hash for recipe in recipes]
    assert [recipe.hash for recipe in recipes] == before
    (tmp_path / "mine.npz").write_bytes(b"other")
    (tmp_path / "net.py").write_text("# changed")
    assert not {recipe.hash for recipe in recipes} & set(before)


def test_a_description_that_makes_no_sense_is_refused():
    for wrong in ({"images": {"split": "train"}}, {"images": DIGITS, "form": "dcgan", "penalty": 1.0}):
        with pytest.raises(ValidationError, match=r"name their data set|has none"):
            Generator(**wrong)
    with pytest.raises(ValidationError, match="nothing is degraded"):
        Restorer(images=DIGITS, degradation={})


# ---------------------------------------------------------------------------------------------------------------------
# The store.


def test_two_processes_train_once(tmp_path):
    script = textwrap.dedent("""
        import sys, time, torch
        from pathlib import Path
        from leakboard.config import Images
        from leakboard.config.recipes import Generator
        from leakboard.recipes import store

        def train():
            with Path("trainings").open("a") as file:
                file.write("once ")
            time.sleep(1)
            return {"weight": torch.ones(3)}

        Path(f"ready{sys.argv[1]}").touch()
        while not all(Path(f"ready{number}").exists() for number in (0, 1)):
            time.sleep(0.01)
        got = store.obtain(Generator(images=Images(name="digits")), train)
        print(got.now, got.seconds, store.load(got.path, {"weight": torch.zeros(3)})["weight"].sum().item())
    """)
    both = [
        subprocess.Popen([sys.executable, "-c", script, str(number)], cwd=tmp_path, text=True, stdout=subprocess.PIPE)
        for number in (0, 1)
    ]
    lines = sorted(process.communicate(timeout=120)[0].split() for process in both)
    assert (tmp_path / "trainings").read_text() == "once "
    assert [line[0] for line in lines] == ["False", "True"], "one trained, the other found it"
    assert lines[0][1:] == lines[1][1:] and float(lines[0][1]) >= 1, "the seconds are those of the one training"


def test_weights_carry_their_recipe_seconds_and_machine(tmp_path):
    recipe = Generator(images=DIGITS, noise=7)
    got = store.obtain(recipe, lambda: {"weight": torch.ones(2)})
    note = json.loads(got.path.with_suffix(".json").read_text())
    assert got.now and got.path == tmp_path / "build" / "recipes" / f"{recipe.hash}.safetensors"
    assert note["recipe"] == {"images": {"name": "digits"}, "noise": 7} and note["kind"] == "generator"
    assert note["seconds"] == got.seconds == store.find(recipe).seconds and note["torch"] == torch.__version__
    assert not list(got.path.parent.glob("*.part"))


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), "no whole file of weights"),
        (lambda path: path.write_bytes(b"nonsense"), "no whole file of weights"),
        (lambda path: store.save_file({"0.weight": torch.zeros(12, 1, 3, 3)}, path), "do not fit"),
    ],
)
def test_damaged_or_foreign_weights_are_named_and_never_trained_over(damage, message):
    asked = question(**TRAINED)
    path = trained_victim(asked, victim_slice(asked)).weights.path
    damage(path)
    before = path.read_bytes()
    with pytest.raises(RecipeError, match=message) as caught:
        network(asked, 0)
    assert str(path) in str(caught.value) and "delete it" in str(caught.value) and path.read_bytes() == before


def test_a_wrong_shape_is_told_as_found_and_expected(tmp_path):
    path = tmp_path / "some.safetensors"
    store.save_file({"a": torch.zeros(2, 3), "b": torch.zeros(1)}, path)
    with pytest.raises(RecipeError, match=r"no c; b, which no layer has; a of \(2, 3\) torch.float32, expected \(3,\)"):
        store.load(path, {"a": torch.zeros(3), "c": torch.zeros(1)})


def test_trained_to_nonsense_is_kept_nowhere():
    recipe = Generator(images=DIGITS)
    with pytest.raises(
        RecipeError, match=f"generator {recipe.hash}: trained to numbers that are not finite, in weight"
    ):
        store.obtain(recipe, lambda: {"weight": torch.tensor([1.0, float("nan")])})
    assert store.find(recipe) is None


def test_small_weights_go_beside_their_record_and_older_ones_away():
    asked = question(**TRAINED)
    weights = trained_victim(asked, victim_slice(asked)).weights
    beside = classifier.record_folder(asked)
    beside.mkdir(parents=True)
    (beside / "0123456789ab.safetensors").touch()
    store.keep_small([classifier_of(asked)], beside)
    assert {path.suffix for path in beside.iterdir()} == {".safetensors", ".json"}
    assert {path.stem for path in beside.iterdir()} == {weights.recipe}
    weights.path.unlink()
    again = trained_victim(asked, victim_slice(asked)).weights
    assert again.path == beside / weights.path.name and again.seconds == weights.seconds and not again.now


# ---------------------------------------------------------------------------------------------------------------------
# Classifiers.


def test_committed_victims_are_what_their_recipes_train():
    """The bits of a victim are part of what was measured: whoever trains it again on such a machine gets the same."""
    asked = config.benchmark("labels_cifar10_gradient_trained_b1", "quick", ROOT / "benchmarks")
    papers = ROOT / "results" / "quick" / "papers"
    record = json.loads((papers / "victims" / asked.name / "metrics.json").read_text())
    victim, here = network(asked, 0), machine.describe(torch.device("cpu"))
    there = trial_lines.read(papers / "labels" / asked.name / "trials.csv").iloc[0]
    if (here["device"], here["torch"]) == (there["device"], there["torch"]):
        assert state_sha(victim.state_dict()) == record["sha256"]
    got = classifier.record(victim, asked)["accuracy"]
    assert got == pytest.approx(record["accuracy"], abs=0.03), "rounding of another processor moves single images"


def test_an_evaluator_is_trained_apart_and_judges_well():
    wide = {"network": {"name": "cnn3", "width": 8}, "training": {**TRAINING, "epochs": 15, "batch": 64}}
    asked = question(**TRAINED, evaluator=wide)
    victims = victim_slice(asked)
    needs = lacking(asked, victims)
    assert [need.role for need in needs] == ["victim", "evaluator"]
    assert all(provide(need, asked).now for need in needs) and not lacking(asked, victims)
    assert not any(provide(need, asked).now for need in needs)
    model = trained_evaluator(asked, victims).model
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert classifier.record(network(asked, 0), asked, model)["evaluator"]["accuracy"] > 0.85
    twin = question(**TRAINED, evaluator={"network": {"name": "lenet_sigmoid"}, "training": TRAINING})
    assert evaluator_of(twin).hash != classifier_of(twin).hash, "the victim's network is drawn anew to judge it"


@pytest.mark.parametrize("role", ["victim", "evaluator"])
def test_no_classifier_is_trained_on_the_victims(role):
    on_victims = {**TRAINING, "images": {"split": "test", "count": 50}}
    network = {"name": "lenet_sigmoid"}
    asked = question(evaluator={"network": network, "training": on_victims})
    if role == "victim":
        asked = question(network={**network, "weights": "trained"}, training=on_victims)
    with pytest.raises(DataError, match=rf"the victims of toy and the training images of the {role} .* share 2 images"):
        lacking(asked, victim_slice(asked))


def test_training_images_that_do_not_fit_the_network_are_named():
    asked = question(**TRAINED | {"training": {**TRAINING, "images": {"name": "photos", "size": 16}}})
    with pytest.raises(RecipeError, match=r"photos train has images of shape \[3, 16, 16\] .* takes \[1, 8, 8\]"):
        trained_victim(asked, victim_slice(asked))


# ---------------------------------------------------------------------------------------------------------------------
# Priors.


def test_a_prior_that_has_seen_a_victim_is_refused_by_name():
    asked, small = question(), {"noise": 4, "width": 4, "epochs": 1, "critic_steps": 1}
    victims = victim_slice(asked)
    for images in (HELD_OUT, Images(name="digits", split="test", start=1, count=5)):
        recipe = Generator(images=images, **small)
        with pytest.raises(DataError) as caught:
            trained_prior(recipe, asked, victims)
        for words in (
            "the victims of toy",
            f"the prior (generator {recipe.hash})",
            "digits test",
            "no image in common",
        ):
            assert words in str(caught.value)
    after = Images(name="digits", split="test", start=2, count=64)
    assert trained_prior(Generator(images=after, **small), asked, victims).weights.now, "the rest of the split is free"


def test_a_prior_is_trained_before_the_trials_and_found_again():
    asked = question()
    recipe = Restorer(images=Images(name="digits", count=32), degradation={"noise": 0.1}, width=4, depth=1, epochs=1)
    (need,) = lacking(asked, victim_slice(asked), [recipe])
    first = provide(need, asked)
    again = trained_prior(recipe, asked, victim_slice(asked))
    assert str(need) == f"prior (restorer {recipe.hash})" and first.now and not again.weights.now
    assert again.weights.seconds == first.seconds > 0
    assert not again.model.training and not any(parameter.requires_grad for parameter in again.model.parameters())


def test_a_victim_whose_training_images_are_not_here_is_found_all_the_same(monkeypatch):
    asked = question(**TRAINED)
    victims = victim_slice(asked)
    trained_victim(asked, victims)
    monkeypatch.setattr("leakboard.recipes.trained.select", lambda images: pytest.fail(f"{images} is asked for"))
    assert not trained_victim(asked, victims).weights.now and not lacking(asked, victims)


def test_neither_victim_nor_evaluator_can_be_had_as_a_prior():
    asked = question(**TRAINED, evaluator={"network": {"name": "lenet_relu"}, "training": TRAINING})
    for role, recipe in (("victim", classifier_of(asked)), ("evaluator", evaluator_of(asked))):
        with pytest.raises(RecipeError, match=f"is the {role} of toy, which no attack is given"):
            trained_prior(recipe, asked, victim_slice(asked))
    own = classifier_of(asked).model_copy(update={"seed": 99})
    assert trained_prior(own, asked, victim_slice(asked)).weights.now, "a network of its own is a prior like any other"
