"""Every rule that reads labels off the last layer, on a trained network and where it must be exact."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn
from toys import ROOT

from leakboard.attack import contract, labels
from leakboard.config import Federation
from leakboard.data import dataset
from leakboard.federation.clients import known_training, train_locally
from leakboard.federation.rounds import difference
from leakboard.rng import seeded
from leakboard.threat import Gradient, ModelUpdate, Public
from leakboard.victim.secrets import Secret

ATTACK = contract.load(ROOT / "baselines" / "labels" / "attack.py")
RULES = ["yin", "row_sums", "bias", "dlf", "llg", "llg_star"]


@functools.cache
def network(trained: bool, constant: bool = False) -> nn.Module:
    """A small network on digits. constant: its last layer's inputs sum to one for every image."""
    with seeded("network", 8, 0):
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.Softmax(1) if constant else nn.ReLU(), nn.Linear(32, 10)
        )
    if trained:
        data = dataset("digits", "train", None)
        images, wanted = data.take(data.available[:600])
        adam = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(100):
            adam.zero_grad()
            nn.CrossEntropyLoss()(model(images), wanted).backward()
            adam.step()
    return model.eval()


def observation(model: nn.Module, batch: int, local: Federation | None = None) -> tuple[Gradient | ModelUpdate, Secret]:
    data = dataset("digits", "test", None)
    hidden = Secret(*data.take(data.available[:batch]))
    loss, public = nn.CrossEntropyLoss(), dataset("digits", "train", None)
    shared = {"model": model, "loss": loss, "shape": tuple(hidden.images.shape), "classes": 10}
    shared["public"] = Public(*public.take(public.available[600:900]))
    if local is None:
        gradient = torch.autograd.grad(loss(model(hidden.images), hidden.labels), list(model.parameters()))
        return Gradient(**shared, gradient=gradient), hidden
    after = train_locally(model, loss, hidden, local, torch.Generator().manual_seed(1))
    known = known_training(local, batch)
    change = difference(dict(model.named_parameters()), after.state_dict())
    return ModelUpdate(**shared, update=tuple(change.values()), local=known), hidden


def share(got: Tensor, true: Tensor) -> float:
    """Of the multiset of true labels, how much was found."""
    found = torch.minimum(got.bincount(minlength=10), true.bincount(minlength=10))
    return float(found.sum()) / len(true)


@pytest.mark.parametrize("trained", [False, True], ids=["untrained", "trained"])
@pytest.mark.parametrize("batch", [1, 10, 100])
def test_bias_form_is_exact_where_the_mean_output_is_known(batch, trained):
    seen, hidden = observation(network(trained), batch)
    assert labels.bias_labels(seen, hidden.images).tolist() == hidden.labels.sort().values.tolist()


@pytest.mark.parametrize("trained", [False, True], ids=["untrained", "trained"])
@pytest.mark.parametrize("batch", [1, 10, 100])
def test_row_sum_form_is_exact_where_the_inputs_all_sum_to_the_same(batch, trained):
    seen, hidden = observation(network(trained, constant=True), batch)
    assert labels.row_sum_labels(seen, hidden.images).tolist() == hidden.labels.sort().values.tolist()


def test_idlg_rule_is_exact_for_one_image_of_a_trained_network():
    seen, hidden = observation(network(True), 1)
    assert labels.idlg_label(seen).tolist() == hidden.labels.tolist()


def chosen(model: nn.Module, classes: list[int]) -> Gradient:
    """The gradient of a batch of test images of these classes."""
    data = dataset("digits", "test", None)
    images, wanted = data.take(data.available[:60])
    first = torch.stack([(wanted == c).nonzero()[0, 0] for c in classes])
    hidden = Secret(images[first], wanted[first])
    gradient = torch.autograd.grad(nn.CrossEntropyLoss()(model(hidden.images), hidden.labels), list(model.parameters()))
    return Gradient(
        model=model, loss=nn.CrossEntropyLoss(), shape=tuple(hidden.images.shape), classes=10, gradient=gradient
    )


def test_smallest_rows_find_labels_that_occur_once():
    assert labels.smallest_rows(chosen(network(False), [1, 4, 7])).tolist() == [1, 4, 7]


@pytest.mark.parametrize("trained", [False, True], ids=["untrained", "trained"])
def test_llg_counts_a_batch_of_one_class_and_finds_labels_that_occur_once(trained):
    """Where its assumption holds: only the rows of labels that are there are negative."""
    assert labels.llg_labels(chosen(network(trained), [6, 6, 6])).tolist() == [6, 6, 6]
    assert labels.llg_labels(chosen(network(False), [1, 4, 7])).tolist() == [1, 4, 7]


@pytest.mark.parametrize("rule", ["row_sums", "bias", "dlf", "llg_star"])
def test_counts_of_an_untrained_network_are_nearly_right(rule):
    seen, hidden = observation(network(False), 20)
    got = contract.configure(ATTACK, {"rule": rule})._infer(seen, torch.Generator().manual_seed(1))
    assert share(got, hidden.labels) >= 0.85


def test_outputs_along_the_steps_count_better_than_those_before_them():
    """Over many steps of a network that learns, its outputs move: the published forms take that into account."""
    local = Federation(learning_rate=0.1, epochs=20, batch=10)
    seen, hidden = observation(network(False), 100, local)
    before = share(labels.row_sum_labels(seen, hidden.images), hidden.labels)
    along = share(labels.row_sum_labels(seen, hidden.images, along=True), hidden.labels)
    assert along >= before


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("trained", [False, True], ids=["untrained", "trained"])
@pytest.mark.parametrize("steps", [None, 5])
def test_every_rule_names_as_many_labels_as_it_can(rule, trained, steps):
    local = None if steps is None else Federation(learning_rate=0.01, epochs=steps, batch=6)
    seen, _ = observation(network(trained), 12, local)
    got = contract.configure(ATTACK, {"rule": rule})._infer(seen, torch.Generator().manual_seed(1))
    assert len(got) == (10 if rule == "yin" else 12) and int(got.min()) >= 0 and int(got.max()) < 10


@pytest.mark.parametrize(
    ("expected", "total", "found"),
    [([1.6, 0.2, 1.2], 3, [0, 0, 2]), ([-1.0, 5.0, -2.0], 2, [1, 1]), ([0.0, 0.0, 0.0], 2, [0, 1])],
)
def test_counts_are_whole_not_negative_and_sum_to_the_batch(expected, total, found):
    assert labels.occurring(torch.tensor(expected), total).tolist() == found
