"""A class that is sought among what clients hold: who holds it, what the attacking client sees, and every bad end."""

from __future__ import annotations

import re

import pytest
import test_honesty
import torch
from toys import GRAY, ROOT, observed, question, toy, trial

from leakboard import config
from leakboard.config import Benchmark, ConfigError
from leakboard.data import DataError, refuse_overlap, select
from leakboard.federation.clients import Held
from leakboard.recipes.classifier import evaluator_of
from leakboard.victim import leak
from leakboard.victim.secrets import development_trials, images_of_clients, public, secret, victim_slice

FEDERATION = {"clients": 3, "rounds": 2, "learning_rate": 0.05}
BOARDS = [name for name in config.board_names() if "_participation" in name]
METRICS = ("evaluator_accuracy", "nearest_victim_mse")


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def asked(held: bool = True, **more) -> Benchmark:
    given = {
        "data": {"name": "digits", "split": "train", "classes": [3, 5, 6], "count": 40},
        "public": {"split": "train", "classes": [0, 1], "count": 30},
        "target": {"classes": [5, 3], "held": held},
        "federation": FEDERATION,
        "network": {"name": "lenet_sigmoid", "further": 1},
        "metrics": METRICS,
        "batch": 4,
        "trials": 4,
        "budget": 1000,
    }
    return question("participation", {"attacker": "client", "knows": ("local_training",)}, **{**given, **more})


@pytest.fixture
def holdings(monkeypatch) -> list[Held]:
    """What every honest client was made of."""
    found, true = [], leak.honest

    def kept(data, *rest):
        found.append(data)
        return true(data, *rest)

    monkeypatch.setattr(leak, "honest", kept)
    return found


def test_targets_take_turns_and_the_others_are_for_development():
    labels = [secret(asked(), number).labels.tolist() for number in range(5)]
    assert labels == [[5] * 4, [3] * 4, [5] * 4, [3] * 4, [6] * 4]
    assert list(development_trials(asked())) == [4]
    with pytest.raises(DataError, match=r"3 classes .* can be targets, 3 of them are official"):
        development_trials(asked(target={"classes": [3, 5, 6]}))


@pytest.mark.parametrize("held", [True, False])
def test_honest_clients_hold_all_of_the_data_and_the_control_none_of_the_target(held, holdings):
    hidden, model, seen = observed(asked(held))
    labels = torch.cat([data.labels for data in holdings])
    everything = images_of_clients(asked(), 5)
    kept = everything.labels if held else everything.labels[everything.labels != 5]
    assert len(holdings) == 2 and labels.sort().values.tolist() == kept.sort().values.tolist()
    assert (5 in labels) == held and seen.target == 5 and set(hidden.labels.tolist()) == {5}
    turn = next(iter(seen))
    assert len(turn.own_data.images) == len(labels) // 2 and set(turn.own_data.labels.tolist()) <= {0, 1}
    assert model(hidden.images).shape == (4, 11) and seen.classes == 10 and seen.local.epochs == 1


def test_a_client_that_owns_what_it_is_after_is_refused():
    with pytest.raises(ConfigError, match="toy: the client that attacks holds images of class 5, which it seeks"):
        observed(asked(public={"split": "train", "classes": [0, 5], "start": 100, "count": 30}))


@pytest.mark.parametrize("scale", config.SCALES)
@pytest.mark.parametrize("name", BOARDS)
def test_on_no_board_the_attacking_client_owns_a_target(name, scale, request):
    if scale == "paper":
        request.getfixturevalue("real_data")
    board = config.benchmark(name, scale)
    owned = set(public(board).labels.tolist())
    aims = {int(secret(board, number).labels[0]) for number in range(board.trials)}
    assert owned and not owned & aims and aims <= set(board.target.classes)
    present = set(images_of_clients(board, min(aims)).labels.tolist())
    assert (min(aims) in present) == board.target.held and not present & owned


@pytest.mark.parametrize("scale", config.SCALES)
@pytest.mark.parametrize("name", BOARDS)
def test_who_judges_has_seen_no_image_that_anybody_in_the_federation_holds(name, scale, request):
    if scale == "paper":
        request.getfixturevalue("real_data")
    board = config.benchmark(name, scale)
    recipe = evaluator_of(board)
    assert recipe.reject is not None and recipe.seed != board.seed
    seen = [select(images) for images in (recipe.trained_on, recipe.rejected) if images is not None]
    for number, one in enumerate([victim_slice(board), select(board.public_images)]):
        for other in seen:
            refuse_overlap({f"held {number}": one, "seen by the judge": other})


def test_what_a_target_goes_with():
    with pytest.raises(ValueError, match="`target` goes with `sees: participation`"):
        question("gradient", target={"classes": [1]})
    assert asked(target={"classes": "3-6"}).target.classes == (3, 4, 5, 6)
    assert asked().hash != asked(held=False).hash


def test_the_attacking_process_never_meets_an_image_of_another_client(monkeypatch, tmp_path):
    """Neither the secret batch nor any image that the honest clients train on crosses the border."""
    board = asked()
    monkeypatch.setattr(test_honesty, "question", lambda *_, **__: board)
    body = "for turn in seen:\n    turn.submit(turn.model.state_dict())\n" + GRAY
    hidden, given = test_honesty.crossed("participation", monkeypatch, tmp_path, body)
    tensors = test_honesty.reachable(given)
    assert test_honesty.holds(tensors, public(board).images[:1]), "the walk finds the client's own images"
    everything = images_of_clients(board, 5)
    assert len(everything.images) == 40 and int(hidden.labels[0]) == 5
    assert not any(test_honesty.holds(tensors, image[None]) for image in everything.images)


# ---------------------------------------------------------------------------------------------------------------------
# Clients that misbehave: each ends in a line that says how.

POISON = """
for turn in seen:
    state = turn.model.state_dict()
    name = next(iter(state))
    state[name] = torch.full_like(state[name], float("nan"))
    turn.submit(state)
"""
ENDS = {
    "nan": (POISON + GRAY, "failed", r"round 0: the answer: .* holds nan at \d+ of \d+ places, expected finite"),
    "crash": ("for turn in seen:\n    raise RuntimeError('rude')", "failed", "RuntimeError: rude"),
    "death": ("import os\nfor turn in seen:\n    os._exit(3)", "failed", "the attack's process ended"),
    "absent": (GRAY, "ok", None),
    "free rider": ("for turn in seen:\n    pass\nassert turn.round == 1\n" + GRAY, "ok", None),
}


@pytest.mark.parametrize(("body", "status", "reason"), ENDS.values(), ids=ENDS)
def test_every_way_to_take_part_has_a_defined_end(body, status, reason, tmp_path):
    line = trial(toy(tmp_path, body, "Participation"), asked()).line
    assert line["status"] == status, line.get("reason")
    if reason is None:
        return
    assert re.search(reason, line["reason"]), line["reason"]
    noise = toy(tmp_path, "return Reconstruction(torch.rand(seen.shape, generator=rng))", "Participation", name="noise")
    assert line["nearest_victim_mse"] == trial(noise, asked()).line["nearest_victim_mse"], "scored as noise"


def test_a_poisoned_federation_ends_by_name_and_not_in_nan(tmp_path):
    """Weights that are finite, and that honest training turns into NaN: the honest client's message is refused."""
    body = """
    for turn in seen:
        turn.submit({key: value * 1e30 for key, value in turn.model.state_dict().items()})
    """
    line = trial(toy(tmp_path, body + GRAY, "Participation"), asked(federation={**FEDERATION, "rounds": 3})).line
    assert line["status"] == "failed" and "expected finite" in line["reason"], line.get("reason")
