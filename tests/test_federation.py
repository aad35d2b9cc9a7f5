"""One federation loop: what rules make of messages, what is refused, who takes part, and what honest clients do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from federated_toys import LOSS, PLAIN, held, small
from torch import nn
from toys import ROOT

from leakboard.config import ConfigError, Federation
from leakboard.errors import Fault
from leakboard.federation.clients import free_rider, honest
from leakboard.federation.rounds import (
    Message,
    MessageError,
    Plan,
    State,
    derived,
    difference,
    rounds,
    state_of,
    taking_part,
)
from leakboard.federation.rules import RULES, average, median, rule_named
from leakboard.recipes.classifier import state_sha


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def drawn(like: State, seed: int) -> State:
    """Another state of the same form; integers from 0 to 8."""
    rng = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(old.shape, generator=rng, dtype=old.dtype)
        if old.is_floating_point()
        else torch.randint(9, old.shape, generator=rng)
        for key, old in like.items()
    }


def sends(state: State, images: int = 1):
    """A client that always sends this."""
    return lambda model, number, rng: (state, images)


# ---------------------------------------------------------------------------------------------------------------------
# Rules.


def messages(dtype: torch.dtype = torch.float64) -> tuple[State, list[Message]]:
    before = state_of(small("batch norm").to(dtype))
    return before, [Message(place, drawn(before, place), images) for place, images in enumerate((1, 4, 10, 3))]


def test_the_average_is_weighted_by_the_images():
    """Against numpy in float64; float buffers are averaged as parameters are, of integers the largest is taken."""
    before, sent = messages()
    after = average(before, sent)
    assert after.keys() == before.keys() and "2.running_var" in after
    for key, got in after.items():
        values = [message.state[key].numpy() for message in sent]
        if before[key].is_floating_point():
            np.testing.assert_allclose(got.numpy(), np.average(values, 0, [1, 4, 10, 3]), rtol=1e-13, atol=1e-15)
        else:
            assert key == "2.num_batches_tracked" and got == max(values) and got.dtype == torch.int64


def test_the_average_of_two_models_in_closed_form():
    before = {"weight": torch.zeros(2)}
    sent = [Message(0, {"weight": torch.tensor([1.0, 0.0])}, 30), Message(1, {"weight": torch.tensor([0.0, 4.0])}, 10)]
    assert average(before, sent)["weight"].tolist() == [0.75, 1.0]


def test_averaging_equal_models_changes_no_bit():
    before, sent = messages(torch.float32)
    same = [Message(place, sent[0].state, images) for place, images in enumerate((3, 7, 11))]
    for rule in RULES.values():
        assert state_sha(rule(before, same)) == state_sha(sent[0].state)


@pytest.mark.parametrize("count", [3, 4])
def test_the_median_is_coordinate_wise_and_no_outlier_moves_it(count):
    before, sent = messages()
    sent = sent[:count]
    key = "1.weight"
    true = np.median([message.state[key].numpy() for message in sent], 0)
    np.testing.assert_allclose(median(before, sent)[key].numpy(), true, rtol=1e-14)
    far = [message for message in sent[1:]] + [Message(0, {k: v + 10**9 for k, v in sent[0].state.items()}, 10**6)]
    assert float(median(before, far)[key].abs().max()) < 10


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_no_rule_minds_the_order_of_the_messages(rule):
    before, sent = messages()
    for order in itertools.permutations(sent):
        for got, true in zip(rule(before, order).values(), rule(before, sent).values(), strict=True):
            torch.testing.assert_close(got, true, rtol=1e-13, atol=1e-15)


def test_a_rule_is_found_by_its_name_and_any_callable_is_one():
    with pytest.raises(ConfigError, match="unknown 'mean'; there are: average, median"):
        rule_named("mean")
    assert rule_named("median") is median
    model, last = small(), lambda before, sent: sent[-1].state
    clients = [free_rider(1), honest(held(3), PLAIN, LOSS)]
    (lived,) = rounds(model, clients, last, derived(1), Plan([0]))
    assert state_sha(lived.after) == state_sha(lived.messages[1].state) != state_sha(lived.before)


# ---------------------------------------------------------------------------------------------------------------------
# Messages that do not fit.

BROKEN = {
    "nan": ({"1.weight": torch.full((3, 4), float("nan"))}, r"1\.weight holds nan at 12 of 12 places, expected finite"),
    "inf": ({"1.bias": torch.tensor([0, -torch.inf, 0])}, r"1\.bias holds -inf at 1 of 3 places, expected finite"),
    "shape": ({"1.bias": torch.zeros(2)}, r"1\.bias has shape \(2,\), expected \(3,\)"),
    "missing": ({"1.bias": None}, r"lacks 1\.bias, expected all keys of the global model"),
    "others": (
        {"1.bias": None, "1.weight": None, **{f"more.{n}": torch.zeros(1) for n in range(5)}},
        r"lacks 1\.bias, 1\.weight, expected all keys",
    ),
    "many": (
        {f"more.{n}": torch.zeros(1) for n in range(5)},
        r"has the extra keys more\.0, more\.1, more\.2 and 2 more",
    ),
    "extra": ({"more": torch.zeros(1)}, r"has the extra keys more, expected those of the global model alone"),
    "type": ({"1.bias": [0, 0, 0]}, r"1\.bias is a list, expected a tensor"),
    "integers": ({"1.bias": torch.zeros(3, dtype=torch.int64)}, r"1\.bias holds torch\.int64, expected torch\.float32"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_message_is_refused_by_name_and_never_averaged(change, message):
    model, averaged = small(), []

    def rule(before: State, sent: list[Message]) -> State:
        averaged.append(len(sent))
        return average(before, sent)

    def late(model: nn.Module, number: int, rng: torch.Generator) -> tuple[State, int]:
        broken = {**state_of(model), **change} if number == 1 else state_of(model)
        return {key: value for key, value in broken.items() if value is not None}, 1

    untouched, loop = (
        state_sha(model.state_dict()),
        rounds(model, [honest(held(3), PLAIN, LOSS), free_rider(2), late], rule, derived(0), Plan(range(3))),
    )
    first = next(loop)
    kept = state_sha(first.after)
    with pytest.raises(MessageError, match=rf"^round 1: the message of client 2:? {message}"):
        next(loop)
    assert averaged == [3] and state_sha(first.after) == kept and state_sha(model.state_dict()) == untouched
    assert list(loop) == [] and issubclass(MessageError, Fault)


@pytest.mark.parametrize("images", [0, -3, 1.5, None])
def test_a_message_stands_for_a_whole_number_of_images(images):
    with pytest.raises(MessageError, match=rf"round 0: the message of client 0 stands for {images} images"):
        next(rounds(small(), [free_rider(images)], average, derived(0), Plan([0])))


def test_what_a_rule_makes_is_checked_too_and_no_client_no_round():
    spoiled = {key: value * torch.nan for key, value in state_of(small()).items()}
    with pytest.raises(MessageError, match=r"round 4: what the rule made of the messages: 1\.weight holds nan"):
        next(rounds(small(), [free_rider(1)], lambda before, sent: spoiled, derived(0), Plan([4])))
    with pytest.raises(MessageError, match="client 0 is a list, expected a state dict"):
        next(rounds(small(), [sends([])], average, derived(0), Plan([0])))
    with pytest.raises(MessageError, match=r"client 0 is a OrderedDict, expected \(state dict, number of images\)"):
        next(rounds(small(), [lambda model, number, rng: model.state_dict()], average, derived(0), Plan([0])))
    with pytest.raises(Fault, match="no clients"):
        next(rounds(small(), [], average, derived(0), Plan([0])))


def test_a_message_is_a_copy_in_the_models_own_floats():
    model = small()
    state = {key: value.double() for key, value in drawn(state_of(model), 3).items()}
    (lived,) = rounds(model, [sends(state, 5)], average, derived(0), Plan([0]))
    state["1.bias"].zero_()
    assert lived.messages[0].state["1.bias"].abs().min() > 0 and lived.after["1.bias"].dtype == torch.float32


# ---------------------------------------------------------------------------------------------------------------------
# Who takes part.


def test_a_share_of_the_clients_takes_part_and_it_is_recorded():
    model, clients = small(), [free_rider(place + 1) for place in range(5)]

    def present(seed: int, share: float) -> list[tuple[int, ...]]:
        lived = list(rounds(model, clients, average, derived(seed), Plan(range(20), share)))
        assert all(message.images == message.client + 1 for one in lived for message in one.messages)
        return [one.clients for one in lived]

    some = present(7, 0.4)
    assert {len(who) for who in some} == {2} and {place for who in some for place in who} == set(range(5))
    assert all(list(who) == sorted(who) for who in some) and len(set(some)) > 5
    assert present(7, 0.4) == some != present(8, 0.4)
    assert set(present(7, 1.0)) == {(0, 1, 2, 3, 4)} and {len(who) for who in present(7, 0.01)} == {1}
    assert [tuple(taking_part(number, 5, 0.4, derived(7))) for number in range(20)] == some


def test_what_a_model_holds_by_design_is_no_broken_message():
    """An imprint block keeps infinite limits in a buffer; a client may send them back, and make none of its own."""
    model = small()
    model.register_buffer("limits", torch.tensor([1.0, torch.inf]))
    (lived,) = rounds(model, [honest(held(3), PLAIN, LOSS), free_rider(2)], average, derived(0), Plan([0]))
    assert lived.after["limits"].tolist() == [1.0, torch.inf]
    state = {**state_of(model), "limits": torch.tensor([torch.inf, torch.inf])}
    with pytest.raises(MessageError, match="limits holds inf at 1 of 2 places"):
        next(rounds(model, [sends(state, 1)], average, derived(0), Plan([0])))


def test_rounds_may_be_taken_up_anywhere():
    """What a round draws depends on nothing that was drawn before it."""
    model, spec = small("batch norm"), Federation(learning_rate=0.1, batch=2, epochs=2)
    clients = [honest(held(6, seed), spec, LOSS) for seed in range(4)]
    whole = list(rounds(model, clients, average, derived(3), Plan(range(4), 0.5)))
    model.load_state_dict(whole[1].after)
    later = rounds(model, clients, average, derived(3), Plan([2, 3], 0.5))
    for first, again in zip(whole[2:], later, strict=True):
        assert again.clients == first.clients and state_sha(again.after) == state_sha(first.after)
        assert state_sha(again.before) == state_sha(first.before)


def test_free_riders_hold_back_what_others_learn():
    model = small()
    (lived,) = rounds(model, [honest(held(6), PLAIN, LOSS), free_rider(18)], average, derived(0), Plan([0]))
    assert state_sha(lived.messages[1].state) == state_sha(model.state_dict())
    learned = difference(lived.before, lived.messages[0].state)
    for key, moved in difference(lived.before, lived.after).items():
        torch.testing.assert_close(moved, learned[key] / 4, rtol=1e-3, atol=1e-7)
