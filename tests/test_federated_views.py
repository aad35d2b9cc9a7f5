"""Updates, sequences and live participation are views of the same rounds: they say what the rounds say."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from toys import ROOT, observed, question

from leakboard.config import Benchmark, ConfigError, Federation
from leakboard.federation.clients import Held, spread, train_locally
from leakboard.federation.rounds import Draws, MessageError, State, derived, difference, state_of, taking_part
from leakboard.recipes.classifier import state_sha
from leakboard.rng import generator
from leakboard.threat import Public
from leakboard.victim.secrets import Secret

SPEC = {"clients": 3, "rounds": 2, "learning_rate": 0.05}
SKEWED = {"partition": "dirichlet", "beta": 0.5, "minimum": 1}


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def asked(sees: str, images: int = 5, knows: tuple[str, ...] = ("clients", "local_training"), **spec) -> Benchmark:
    return question(sees, {"knows": knows}, batch=images, federation={**SPEC, **spec})


def drawn_by(question_: Benchmark, number: int = 0) -> tuple[int, Draws]:
    """What the clients of a trial draw from: the seed of the partition, and that of the rounds."""
    clients = generator("clients", question_.seed, number)
    seed = int(torch.randint(2**62, (1,), generator=clients))
    return seed, derived(seed)


def weighted(parts: list[tuple[State, int]]) -> State:
    total = sum(images for _, images in parts)
    return {key: sum(images * part[key].double() for part, images in parts) / total for key in parts[0][0]}


def local_change(model: nn.Module, loss: nn.Module, data: Held | Public | Secret, spec: Federation, rng) -> State:
    local = train_locally(model, loss, data, spec, rng)
    return difference(dict(model.named_parameters()), local.state_dict())


@pytest.mark.parametrize(("batch", "more"), [(4, {}), (5, {}), (9, SKEWED), (6, {"share": 0.67, "rounds": 5})])
def test_a_sequence_is_the_weighted_average_of_its_clients(batch, more):
    """Trained again by hand from the models that are seen: sizes are uneven, and some rounds are without client 0."""
    question_ = asked("sequence", batch, **more)
    hidden, model, seen = observed(question_)
    spec, (seed, rng) = question_.federation, drawn_by(question_)
    own = Public(seen.public.images[: batch // 2], seen.public.labels[: batch // 2])
    data = [own, *spread(hidden, spec, 2, seed)[0]]
    assert len(seen.models) == spec.rounds + 1 and len(seen.own_update) == spec.rounds
    assert state_sha(seen.models[0]) == state_sha(model.state_dict()) and seen.clients == 3
    for number, mine in enumerate(seen.own_update):
        model.load_state_dict(seen.models[number])
        present = taking_part(number, 3, spec.share, rng)
        sent = {place: local_change(model, seen.loss, data[place], spec, rng(number, place)) for place in present}
        wanted = weighted([(sent[place], len(data[place].images)) for place in present])
        for name, change in wanted.items():
            got = seen.models[number + 1][name] - seen.models[number][name]
            torch.testing.assert_close(got, change.float(), rtol=1e-3, atol=2e-7)
        zero = [torch.zeros_like(parameter) for parameter in model.parameters()]
        for got, true in zip(mine, sent[0].values() if 0 in sent else zero, strict=True):
            assert torch.equal(got, true)
    alone = [bool(torch.cat([part.flatten() for part in mine]).any()) for mine in seen.own_update]
    assert all(alone) if spec.share == 1 else 0 < sum(alone) < spec.rounds


def test_a_client_knows_its_own_local_training():
    """Four public images of its own in mini-batches of two are two steps; the eight secret ones are its peers'."""
    seen = observed(asked("sequence", 8, batch=2))[2]
    assert seen.local.steps == 2 and observed(asked("sequence", knows=()))[2].local is None


@pytest.mark.parametrize("answered", [True, False])
def test_a_live_client_among_five_over_three_rounds(answered):
    """Its answer enters the average with the weight of its own images; a turn left unanswered counts as no change."""
    question_ = asked("participation", 10, clients=5, rounds=3)
    hidden, model, seen = observed(question_)
    spec, (seed, rng) = question_.federation, drawn_by(question_)
    peers = spread(hidden, spec, 4, seed)[0]
    assert sorted(len(peer.images) for peer in peers) == [2, 2, 3, 3]
    expected = state_of(model)
    for number, turn in enumerate(seen):
        assert turn.round == number and torch.equal(turn.own_data.images, seen.public.images[:2])
        for key, value in turn.model.state_dict().items():
            torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-7)
        before = state_of(turn.model)
        answer = {key: value * -2 for key, value in before.items()} if answered else before
        if answered:
            turn.submit(answer)
        places = enumerate(peers, 1)
        honest = [
            (train_locally(turn.model, seen.loss, peer, spec, rng(number, place)).state_dict(), len(peer.images))
            for place, peer in places
        ]
        expected = {key: value.float() for key, value in weighted([(answer, 2), *honest]).items()}
    assert number == 2 and list(seen) == [], "a client lives through each round once"


def test_a_live_client_has_a_turn_in_the_rounds_that_it_takes_part_in():
    question_ = asked("participation", 6, clients=4, rounds=12, share=0.5)
    rng = drawn_by(question_)[1]
    turns = [turn.round for turn in observed(question_)[2]]
    assert turns == [number for number in range(12) if 0 in taking_part(number, 4, 0.5, rng)]
    assert 0 < len(turns) < 12


def test_an_answer_that_does_not_fit_is_refused_at_once_and_by_name():
    loop = iter(observed(asked("participation"))[2])
    turn = next(loop)
    state = turn.model.state_dict()
    key = next(iter(state))
    broken = state[key].clone()
    broken.view(-1)[3] = torch.nan
    short = {name: value for name, value in state.items() if name != key}
    for wrong, words in (
        ({**state, key: broken}, rf"{key} holds nan at 1 of {broken.numel()} places, expected finite"),
        ({**state, key: torch.zeros(2, 2)}, rf"{key} has shape \(2, 2\)"),
        ({**state, "more": torch.zeros(1)}, "has the extra keys more"),
        (short, f"lacks {key}"),
    ):
        with pytest.raises(MessageError, match=rf"^round 0: the answer:? {words}"):
            turn.submit(wrong)
        assert turn.answer is None
    turn.submit(state)
    next(iter(state.values())).zero_()
    assert state_sha(turn.answer) != state_sha(state), "an answer is a copy"
    turn.answer[key].fill_(torch.inf)  # past `submit`: the round refuses it as well
    with pytest.raises(MessageError, match=rf"^round 0: the message of client 0: {key} holds inf"):
        next(loop)


def test_rounds_leave_the_victims_network_and_the_global_randomness_alone():
    """Dropout draws from its client's seed: the same trial gives the same bits whatever was drawn elsewhere."""
    network = {"name": "cnn", "width": 64, "dropout": 0.5, "mode": "train"}
    shas = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        question_ = question("participation", batch=4, network=network, federation=SPEC)
        _, model, seen = observed(question_)
        untouched = state_sha(model.state_dict())
        turns = list(seen)
        update = observed(question("update", batch=4, network=network, federation=SPEC))[2].update
        slope = observed(question("gradient", batch=4, network=network))[2].gradient
        shas.append((state_sha(turns[1].model.state_dict()), *(float(part.sum()) for part in (*update, *slope))))
        assert state_sha(model.state_dict()) == untouched
        assert torch.equal(torch.random.get_rng_state(), before)
    assert shas[0] == shas[1] and shas[0][0] != untouched


# ---------------------------------------------------------------------------------------------------------------------
# Who holds what.


def pool(count: int = 60) -> Held:
    labels = torch.arange(count) % 6
    return Held(torch.arange(count).float().view(-1, 1, 1, 1) / count, labels)


SPECS = {
    "iid": ({}, 1.0, ()),
    "classes": ({"partition": "classes", "classes_per_client": 2}, 1.0, ()),
    "dirichlet": (SKEWED, 1.0, ()),
    "label": ({"partition": "label", "groups": [[0], [1, 2], [3], [4]]}, 5 / 6, (5,)),
}


@pytest.mark.parametrize(("spec", "share", "missing"), SPECS.values(), ids=SPECS)
def test_images_are_spread_unevenly_and_the_coverage_is_told(spec, share, missing):
    data = pool()
    parts, reached = spread(data, Federation(learning_rate=1, **spec), 4, seed=3)
    assert reached.share == pytest.approx(share) and reached.missing_classes == missing
    assert reached.sizes == tuple(len(part.images) for part in parts) and len(parts) == 4
    together = torch.cat([part.images for part in parts]).flatten()
    assert len(together.unique()) == len(together) == round(60 * share)
    for part in parts:
        assert torch.equal(data.labels[(part.images.flatten() * 60).round().long()], part.labels)
    again = spread(data, Federation(learning_rate=1, **spec), 4, seed=3)[0]
    assert all(torch.equal(one.images, other.images) for one, other in zip(parts, again, strict=True))
    assert np.ptp(reached.sizes) > 0 or spec == {}


def test_images_that_cannot_be_spread_so_are_refused():
    for spec, clients, words in (
        ({}, 61, "'iid': 61 clients for 60 images"),
        ({"partition": "classes", "classes_per_client": 1}, 4, "cannot hold all 6 classes"),
        ({"partition": "label", "groups": [[0], [1]]}, 3, "2 groups of classes for 3 clients"),
    ):
        with pytest.raises(ConfigError, match=words):
            spread(pool(), Federation(learning_rate=1, **spec), clients, seed=0)
    for spec, words in (
        ({"partition": "dirichlet"}, "`beta` and `partition: dirichlet` go together"),
        ({"groups": [[1]]}, "`groups` and `partition: label` go together"),
        ({"minimum": 3}, "`minimum` goes with"),
        ({"share": 0}, "share"),
    ):
        with pytest.raises(ValueError, match=words):
            Federation(learning_rate=1, **spec)
    assert Federation(learning_rate=1, partition="iid", share=1.0, rule="average").said() == {"learning_rate": 1.0}


@pytest.mark.parametrize("sees", ["sequence", "participation"])
def test_every_secret_image_is_somebodys(sees):
    """The images of the first trial are digits 7, 2, 1, ...: a partition that leaves some out is refused at once."""
    digits = sorted(set(observed(asked("gradient", 4))[0].labels.tolist()))
    left_out = digits[-1]
    split = {"partition": "label", "groups": [digits[:1], digits[1:-1]]}
    with pytest.raises(ConfigError, match=rf"3 of 4 secret images to a client; of classes {left_out} nobody holds any"):
        observed(asked(sees, 4, **split))
    with pytest.raises(ConfigError, match="2 clients for 1 images"):
        observed(asked(sees, 1))
    with pytest.raises(ConfigError, match=r"federation\.clients is 1"):
        observed(asked(sees, 4, clients=1))
    with pytest.raises(ConfigError, match="unknown 'best'; there are: average, median"):
        observed(asked(sees, 4, rule="best"))


@pytest.mark.parametrize("sees", ["sequence", "participation"])
def test_a_client_that_attacks_needs_images_of_its_own(sees):
    poor = copy.deepcopy(asked(sees).model_dump(exclude_unset=True)) | {
        "threat": {"sees": sees, "knows": ["batch_size"]}
    }
    poor.pop("public")
    with pytest.raises(ConfigError, match="toy: a client that attacks holds public images of its own"):
        observed(Benchmark.model_validate(poor))


def test_the_rule_of_a_federation_makes_its_models():
    """Three rounds of median and of average part ways from the same start."""
    one, other = (observed(asked("sequence", 6, clients=4, rule=rule))[2] for rule in ("average", "median"))
    assert state_sha(one.models[0]) == state_sha(other.models[0])
    assert state_sha(one.models[1]) != state_sha(other.models[1])


@pytest.mark.parametrize("access", ["white", "black"])
def test_a_released_model_says_where_it_lies(access):
    _, _, seen = observed(question("released", {"access": access}))
    assert seen.lies_on == torch.device("cpu") == seen.device
