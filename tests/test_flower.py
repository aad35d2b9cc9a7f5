"""The same federation as a Flower app, in Flower's own simulation: real runs, of clients in processes of their own."""

from __future__ import annotations

import pytest
import torch
from federated_toys import LOSS, PLAIN, held, small

from leakboard.federation.clients import free_rider, honest
from leakboard.federation.rounds import Message, MessageError, Plan, derived, rounds, state_of
from leakboard.federation.rules import average

pytest.importorskip("flwr", reason="leakboard[flower] is not installed")

from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from leakboard.federation import flower

DRAWS = derived("flower")


def crashes(model, number, rng):
    raise RuntimeError("out of battery")


def diverges(model, number, rng):
    state = state_of(model)
    state["1.weight"][0, 0] = torch.nan
    return state, 5


def test_the_global_model_is_that_of_the_loop_in_one_process():
    """With dropout, batch norm, clients of unequal weight and a free rider: every message and every model."""
    model, clients = small("batch norm"), [honest(held(5), PLAIN, LOSS), free_rider(3), honest(held(7, 1), PLAIN, LOSS)]
    there = flower.simulated(model, clients, average, DRAWS, 2)
    here = list(rounds(model, clients, average, DRAWS, Plan(range(2))))
    assert [one.number for one in there] == [0, 1] and all(one.clients == (0, 1, 2) for one in there)
    for one, other in zip(there, here, strict=True):
        assert [message.images for message in one.messages] == [5, 3, 7]
        for mine, theirs in ((one.before, other.before), (one.after, other.after), *zip_states(one, other)):
            assert all(torch.allclose(mine[key], theirs[key], rtol=1e-5, atol=1e-7) for key in theirs)
    assert any(not torch.equal(there[0].before[key], there[1].after[key]) for key in there[0].before)


def zip_states(one, other):
    return [(mine.state, theirs.state) for mine, theirs in zip(one.messages, other.messages, strict=True)]


@pytest.mark.parametrize(
    "client, words",
    [
        (diverges, r"round 0: the message of client 1: 1\.weight holds nan at 1 of \d+ places, expected finite"),
        (crashes, r"round 0: a client failed: .*out of battery"),
    ],
)
def test_a_client_that_crashes_or_sends_nan_ends_the_federation_with_a_sentence(client, words):
    clients = [honest(held(5), PLAIN, LOSS), client]
    with pytest.raises(MessageError, match=f"(?s){words}"):
        flower.simulated(small(), clients, average, DRAWS, 2)


def records(messages):
    return [RecordDict({"a": ArrayRecord(one.state), "m": MetricRecord({"w": one.images})}) for one in messages]


def test_the_average_is_that_of_flower():
    rng, before = torch.Generator().manual_seed(1), state_of(small())
    messages = [
        Message(place, {key: torch.randn(old.shape, generator=rng) for key, old in before.items()}, images)
        for place, images in enumerate((1, 4, 10, 3))
    ]
    theirs = aggregate_arrayrecords(records(messages), "w").to_torch_state_dict()
    mine = average(before, messages)
    assert all(torch.allclose(mine[key], theirs[key], atol=1e-6) for key in before)
