"""The rules that make a number honest: secrets that no attack can reach, and failures that count."""

from __future__ import annotations

import gc
import hashlib
import io
import pickle
import sys
import types

import pytest
import torch
from toys import GRAY, ROOT, observed, question, toy, trial

from leakboard import config
from leakboard.attack.once import Parcel, _Unpickler
from leakboard.attack.wire import packed
from leakboard.data import DataError, refuse_overlap, select
from leakboard.recipes.classifier import evaluator_of
from leakboard.rng import generator
from leakboard.run import box, exchange, observation
from leakboard.score import match, mse
from leakboard.victim.network import network
from leakboard.victim.secrets import public, secret

NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.yaml") if path.name != "dvc.yaml")
RUN = {run for paper in config.paper_names() for run in config.params(paper).boards}  # others are for users' data
KINDS = {"gradient": "Gradient", "update": "ModelUpdate", "sequence": "ModelSequence"}
KINDS |= {"participation": "Participation", "released": "ReleasedModel"}


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


# ---------------------------------------------------------------------------------------------------------------------
# Rule 1: the attack never holds the secret.


def reachable(start: object, without: tuple[object, ...] = ()) -> list[torch.Tensor]:
    """Every tensor that can be got at from an object: attributes, containers, closures, frames, autograd graphs.

    Not through modules, classes and the globals of functions, which every Python object reaches.
    """
    closed = [vars(module) for module in list(sys.modules.values()) if type(module) is types.ModuleType]
    skipped = (type, types.ModuleType, types.CodeType, types.BuiltinFunctionType, str, bytes, int, float)
    kept, seen, waiting = [], {id(part) for part in (*closed, *without)}, [start]
    while waiting:
        part = waiting.pop()
        if id(part) in seen or isinstance(part, skipped):
            continue
        seen.add(id(part))
        kept.append(part)  # alive until the end, so that no id is used twice
        waiting += [other for other in gc.get_referents(part) if other is not getattr(part, "__globals__", None)]
        if isinstance(part, torch.Tensor):
            waiting += [part.grad_fn, part.grad if part.is_leaf else None, part._base]
        elif hasattr(part, "next_functions"):
            waiting += [node for node, _ in part.next_functions]
            waiting += [getattr(part, name) for name in dir(part) if name.startswith("_saved_")]
    return [part for part in kept if isinstance(part, torch.Tensor)]


def holds(tensors: list[torch.Tensor], image: torch.Tensor) -> bool:
    """Whether one of the tensors shares memory with the image or has it among its rows."""
    place, flat = image.untyped_storage().data_ptr(), image.detach().double().flatten()
    for tensor in tensors:
        if tensor.untyped_storage().data_ptr() == place:
            return True
        if tensor.numel() and tensor.numel() % flat.numel() == 0 and not tensor.is_complex():
            rows = tensor.detach().double().reshape(-1, flat.numel())
            if bool((rows - flat).abs().amax(1).le(1e-7).any()):
                return True
    return False


def crossed(sees: str, monkeypatch, tmp_path, body: str = GRAY, **threat):
    """(the secret, everything that crosses the border towards an attack on such a question, unpickled)."""
    caught: list = []
    true_secret, hidden = observation.secret, []

    def kept_secret(*args):
        hidden.append(true_secret(*args))
        return hidden[-1]

    def dumps(value):
        caught.append(pickle.dumps(value))
        return caught[-1]

    class Opened(Parcel):
        def __init__(self, value):
            super().__init__(value)
            kept = {name: packed({}, {"images": one.images, "labels": one.labels}) for name, one in self.named.items()}
            dumps(_Unpickler(io.BytesIO(self.content), kept).load())

    monkeypatch.setattr(observation, "secret", kept_secret)
    monkeypatch.setattr(box, "pickle", types.SimpleNamespace(dumps=dumps))
    for part in (box, exchange):
        monkeypatch.setattr(part, "Parcel", Opened)
    federated = {"clients": 3, "rounds": 2, "learning_rate": 0.05}
    asked = question(sees, {"knows": ("labels", "local_training"), **threat}, batch=2, federation=federated)
    line = trial(toy(tmp_path, body, KINDS[sees]), asked).line
    assert line["status"] == "ok", line.get("reason")
    return hidden[0], [pickle.loads(content) for content in caught]


@pytest.mark.parametrize("sees", ["gradient", "update", "sequence", "released"])
def test_nothing_that_crosses_the_border_leads_to_the_secret(sees, monkeypatch, tmp_path):
    hidden, given = crossed(sees, monkeypatch, tmp_path)
    tensors = reachable(given)
    assert len(tensors) > 10, "the walk reaches the model and the observation"
    (seen,) = next(part for part in given if isinstance(part, list))
    assert holds(tensors, seen.public.images[0]), "the walk finds images where there are some"
    for image in hidden.images:
        assert not holds(tensors, image[None])
    assert not holds(tensors, hidden.images)


def test_a_live_client_meets_models_and_its_own_images_alone(monkeypatch, tmp_path):
    """The victims live on inside the rounds, on the other side: of every turn a state and public images cross."""
    body = "for turn in seen:\n    turn.submit(turn.model.state_dict())\n" + GRAY
    hidden, given = crossed("participation", monkeypatch, tmp_path, body)
    answers = [part for part in given if isinstance(part, tuple) and part[0] is not None]
    assert len(answers) == 2, "two rounds"
    tensors = reachable(given)
    assert not any(holds(tensors, image[None]) for image in hidden.images)


def test_no_weight_of_a_black_box_crosses_the_border(monkeypatch, tmp_path):
    body = "seen.query(torch.zeros(1, *seen.shape[1:]))\n" + GRAY
    _, given = crossed("released", monkeypatch, tmp_path, body, access="black")
    assert any(isinstance(part, list) for part in given), "what is attacked is among it"
    assert not [part for part in reachable(given) if isinstance(part, torch.nn.Parameter)]
    sizes = {tuple(part.shape) for part in reachable(given)}
    assert (1, 10) in sizes, "the confidences of one query"


@pytest.mark.parametrize("place", ["hook", "closure", "graph", "attribute"])
def test_the_walk_finds_a_planted_secret(place):
    hidden, _, seen = observed(question())
    image = hidden.images
    if place == "hook":
        seen.model.register_forward_hook(lambda *_: image)
    elif place == "closure":
        seen.observer = (lambda deep: lambda *_: deep["deep"])({"deep": image})
    elif place == "graph":
        seen.gradient = ((torch.ones(1, requires_grad=True) * image).sum(),)
    else:
        seen.model[0].note = [image.clone()]
    assert holds(reachable(seen), hidden.images)


def test_labels_of_a_batch_come_sorted():
    asked = question("gradient", {"knows": ["labels"]}, batch=8)
    unsorted = 0
    for number in range(5):
        hidden, _, seen = observed(asked, number)
        assert seen.labels.tolist() == sorted(hidden.labels.tolist())
        unsorted += seen.labels.tolist() != hidden.labels.tolist()
    assert unsorted, "the order of these batches says something, so sorting matters"


# ---------------------------------------------------------------------------------------------------------------------
# Rule 8: victims are disjoint from what anybody has.


def hashes(images: torch.Tensor) -> set[str]:
    return {hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest() for image in images}


def victims(asked: config.Benchmark) -> torch.Tensor:
    return torch.cat([secret(asked, number).images for number in range(asked.trials)])


@pytest.mark.parametrize("name", NAMES)
def test_quick_victims_are_neither_public_nor_twice(name):
    disjoint(config.benchmark(name, "quick"))


@pytest.mark.parametrize("name", [name for name in NAMES if name in RUN])
def test_paper_victims_are_neither_public_nor_twice(name, real_data):
    disjoint(config.benchmark(name, "paper"))


def disjoint(asked: config.Benchmark) -> None:
    images, pool = victims(asked), public(asked)
    assert len(images) == asked.trials * asked.batch
    if not asked.by_class:  # where victims are all images of a class
        assert len(hashes(images)) == len(images), "an image stands in two trials"
    if pool is not None:
        assert len(pool.images) == asked.public.count and not hashes(images) & hashes(pool.images)


def test_public_images_from_the_victims_split_are_refused():
    asked = question(public={"split": "test"})
    with pytest.raises(DataError, match=r"victims and public images share 2 images of digits test \(0-1\)"):
        public(asked)


RELEASED = [name for name in NAMES if "_released" in name and name in RUN]


def shown_to_the_evaluator(asked):
    recipe = evaluator_of(asked)
    return [images for images in (recipe.trained_on, recipe.rejected) if images is not None]


@pytest.mark.parametrize("name", RELEASED)
def test_who_judges_a_released_model_saw_none_of_what_it_may_give_away(name):
    asked = config.benchmark(name, "quick")
    hidden = hashes(select(asked.data).take()[0])
    assert not [one for one in shown_to_the_evaluator(asked) if hidden & hashes(select(one).take()[0])]


@pytest.mark.parametrize("name", RELEASED)
def test_who_judges_a_released_model_saw_none_of_it_at_paper_scale(name, real_data):
    asked = config.benchmark(name, "paper")
    for images in (one for one in shown_to_the_evaluator(asked) if one.shares_with(asked.data)):
        refuse_overlap({"what may be given away": select(asked.data), "what the evaluator saw": select(images)})


@pytest.mark.parametrize("name", NAMES)
def test_trained_victims_never_saw_the_secrets(name):
    for scale in config.SCALES:
        asked = config.benchmark(name, scale)
        if asked.training is None or asked.threat.sees == "released":  # which gives away what it was trained on
            continue
        images = asked.training.images.of(asked.data)
        assert not images.shares_with(asked.data)
        if scale == "quick":
            assert not hashes(victims(asked)) & hashes(select(images).take()[0])
        elif images.name.removesuffix("_jpeg") == asked.data.name:
            assert {images.split, asked.data.split} == {"train", "test"}


def test_training_on_the_victims_split_is_refused(tmp_path, monkeypatch):
    recipe = {"images": {"split": "test"}, "epochs": 1, "learning_rate": 0.1, "augment": False}
    asked = question(network={"name": "lenet_sigmoid", "weights": "trained"}, training=recipe)
    for folder in ("benchmarks", "baselines"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"the victims of toy and the training images of the victim .* share 2 images"):
        network(asked, 0)


def test_noise_of_a_failed_trial_is_drawn_from_seed_and_trial_alone(tmp_path):
    asked = question(batch=2)
    line = trial(toy(tmp_path, 'raise RuntimeError("rude")'), asked, 1).line
    noise = torch.rand(2, 1, 8, 8, generator=generator("attack", asked.seed, 1))
    true = secret(asked, 1).images
    assert line["mse_each"] == mse(true, noise[match(true, noise)]).tolist()


@pytest.mark.parametrize("equal", [1, 2, 3, 4])
def test_equal_labels_are_as_many_as_asked_and_no_image_comes_twice(equal):
    asked = config.benchmark(f"cnn3_cifar10_gradient_b4_equal{equal}", "quick")
    batches = [secret(asked, number) for number in range(4)]
    for number, batch in enumerate(batches):
        counts = batch.labels.bincount(minlength=10)
        assert counts.sum() == 4 and counts[number] == equal and counts.topk(2).values[1] == (1 if equal < 4 else 0)
    images = torch.cat([batch.images for batch in batches]).flatten(1)
    assert len(images.unique(dim=0)) == 16
    with pytest.raises(DataError, match="no images of class"):
        secret(asked, 10_000)


def test_no_trial_attacks_images_that_are_public():
    asked = config.benchmark("imprint_imagenet_gradient_k128", "quick")
    both = asked.public.model_copy(update={"split": "test", "start": 64, "count": 10})
    asked = asked.model_copy(update={"public": both})
    assert len(secret(asked, 1).images) == 32, "the images before the public ones are victims"
    with pytest.raises(DataError, match="images of trial 2 and public images share 10 images"):
        secret(asked, 2)
