"""Defences act where they say, do nothing at 0, and are refused by name where they do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import GRAY, ROOT, observed, question, toy, trial

from leakboard.config import Benchmark, ConfigError, Federation
from leakboard.federation.clients import Held, honest, train_locally
from leakboard.federation.rounds import Message, Plan, derived, rounds
from leakboard.federation.rules import average
from leakboard.recipes.classifier import state_sha
from leakboard.victim.defences import Defences, acts_on, defences_of, points

SPEC = {"clients": 3, "rounds": 2, "learning_rate": 0.05}
LOSS = nn.CrossEntropyLoss()


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def more_defences(monkeypatch):
    """Defences that a test adds are gone after it."""
    monkeypatch.setattr(points, "DEFENCES", dict(points.DEFENCES))


def asked(sees: str, defence: dict | None = None, **more) -> Benchmark:
    federation = {} if sees in ("gradient", "released") else {"federation": SPEC}
    return question(sees, **{"batch": 4, **federation, **more}, defence=defence or {})


def leaked(benchmark: Benchmark) -> list[torch.Tensor]:
    """All that an observation of client messages holds."""
    seen = observed(benchmark)[2]
    if benchmark.threat.sees == "gradient":
        return list(seen.gradient)
    if benchmark.threat.sees == "update":
        return list(seen.update)
    if benchmark.threat.sees == "sequence":
        return [part for state in seen.models for part in state.values()] + [p for own in seen.own_update for p in own]
    return [part for turn in seen for part in turn.model.state_dict().values()]


MESSAGES = ["gradient", "update", "sequence", "participation"]


@pytest.mark.parametrize("sees", MESSAGES)
def test_noise_of_no_deviation_leaves_every_bit(sees):
    plain, silent = leaked(asked(sees)), leaked(asked(sees, {"gaussian_noise": {"deviation": 0}}))
    assert all(torch.equal(one, other) for one, other in zip(plain, silent, strict=True))
    loud = leaked(asked(sees, {"gaussian_noise": {"deviation": 0.1}}))
    assert not all(torch.equal(one, other) for one, other in zip(plain, loud, strict=True))


@pytest.mark.parametrize("sees", ["gradient", "update"])
@pytest.mark.parametrize("deviation", [0.001, 0.3])
def test_noise_has_the_deviation_that_is_stated(sees, deviation):
    """Of what is seen minus what would be; within five standard errors, and of mean zero."""
    plain = torch.cat([part.flatten() for part in leaked(asked(sees))]).double()
    noisy = leaked(asked(sees, {"gaussian_noise": {"deviation": deviation}}))
    noise = torch.cat([part.flatten() for part in noisy]).double() - plain
    count = len(noise)
    assert float(noise.std()) == pytest.approx(deviation, rel=5 / (2 * count) ** 0.5)
    assert abs(float(noise.mean())) < 5 * deviation / count**0.5 and len(noise.unique()) > 0.9 * count


def test_noise_is_the_trials_own_and_repeatable():
    noisy = asked("update", {"gaussian_noise": {"deviation": 0.1}})
    first, again, other = (torch.cat([p.flatten() for p in observed(noisy, n)[2].update]) for n in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("access", ["black", "white"])
def test_answers_are_rounded_to_multiples_of_the_step(access):
    def asked_(step: float) -> Benchmark:
        return asked("released", {"rounding": {"step": step}}, threat={"access": access, "sees": "released"})

    hidden, model, seen = observed(asked_(0.05))
    true = model(hidden.images).softmax(1).detach()
    got = seen.query(hidden.images).detach()
    assert float((got - true).abs().max()) <= 0.025 + 1e-6 and not torch.equal(got, true)
    torch.testing.assert_close(got / 0.05, (got / 0.05).round(), rtol=0, atol=1e-4)
    assert torch.equal(observed(asked_(0))[2].query(hidden.images).detach(), true)


def test_without_a_defence_nothing_acts():
    assert defences_of(asked("update")) == Defences() == (None,) * 5


@pytest.mark.parametrize(
    ("sees", "defence", "words"),
    [
        ("update", {"magic": {}}, "toy: defence: unknown magic; there are: secure_aggregation, rounding, precode"),
        ("update", {"gaussian_noise": {}}, "toy: defence.gaussian_noise lacks deviation; its settings: deviation"),
        ("update", {"gaussian_noise": {"deviation": 1, "seed": 2}}, "has no setting seed; its settings: deviation"),
        ("update", {"gaussian_noise": {"deviation": -1}}, "gaussian_noise.deviation is -1.0, expected a number from 0"),
        ("update", {"gaussian_noise": {"deviation": float("inf")}}, "deviation is inf, expected a number from 0 on"),
        ("update", {"rounding": {"step": 0.1}}, "rounding acts on the answer, which 'update' does not come by"),
        ("released", {"gaussian_noise": {"deviation": 1}}, "acts on the message, which 'released' does not come by"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(sees, defence, words):
    with pytest.raises(ConfigError) as refused:
        observed(asked(sees, defence))
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_a_defence_is_one_function(more_defences, tmp_path):
    """Several at one point act in the order in which they stand in the file, whatever the benchmark's order."""

    @acts_on("message")
    def signs(tensors, rng, *, scale: float = 1.0):
        return {key: scale * value.sign() for key, value in tensors.items()}

    signed = asked("update", {"signs": {"scale": 0.25}})
    assert {abs(round(float(v), 5)) for part in observed(signed)[2].update for v in part.flatten()} <= {0.0, 0.25}
    both = {"signs": {}, "gaussian_noise": {"deviation": 10.0}}
    assert all(part.abs().max() <= 1 for part in leaked(asked("gradient", both))), "noise first, then its signs"
    line = trial(toy(tmp_path, GRAY, "ModelUpdate"), signed).line
    assert line["status"] == "ok" and signed.hash != asked("update").hash


# ---------------------------------------------------------------------------------------------------------------------
# The other points: a local step, an aggregate.


def test_a_local_step_takes_the_place_of_the_gradient(more_defences):
    @acts_on("local_step")
    def clipped(model, loss, images, labels, rng, *, norm: float):
        slope = torch.autograd.grad(loss(model(images), labels), list(model.parameters()))
        length = torch.cat([part.flatten() for part in slope]).norm()
        return [part * min(1.0, norm / float(length)) for part in slope]

    @acts_on("local_step")
    def another(model, loss, images, labels, rng):
        return []

    loose, tight = ({"clipped": {"norm": norm}} for norm in (1e9, 1e-3))
    for sees in MESSAGES:
        for got, plain in zip(leaked(asked(sees, loose)), leaked(asked(sees)), strict=True):
            assert torch.equal(got, plain), "a clip at infinity is plain training"
    moved = torch.cat([part.flatten() for part in leaked(asked("update", tight))])
    assert float(moved.norm()) == pytest.approx(0.05 * 1e-3, rel=1e-2)
    with pytest.raises(ConfigError, match="a local step is replaced by one defence"):
        observed(asked("update", {**tight, "another": {}}))


def test_an_aggregate_hides_single_messages_from_the_server_alone(more_defences):
    @acts_on("aggregate")
    def summed(messages, rng):
        total = sum(message.images for message in messages)
        return [Message(-1, average(messages[0].state, messages), total)]

    acting = defences_of(asked("sequence", {"summed": {}}))
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    data = [Held(torch.rand(n, 1, 2, 2), torch.arange(n) % 3) for n in (3, 5)]
    clients = [honest(part, Federation(learning_rate=0.1), LOSS) for part in data]
    (open_,) = rounds(model, clients, average, derived(0), Plan([0]))
    (lived,) = rounds(model, clients, average, derived(0), Plan([0]), acting.aggregate)
    assert open_.received is open_.messages and lived.clients == (0, 1)
    assert [(message.client, message.images) for message in lived.received] == [(-1, 8)]
    assert state_sha(lived.after) == state_sha(lived.received[0].state) == state_sha(open_.after)


def test_a_message_keeps_what_a_defence_left_alone():
    """Pruned entries stay as they were, kept ones have the very bits of the trained model; buffers go as they are."""
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 3)).train()
    data, spec = Held(torch.rand(6, 1, 2, 2), torch.arange(6) % 3), Federation(learning_rate=0.1)

    def pruned(tensors, rng):
        assert set(tensors) == {name for name, _ in model.named_parameters()}
        return {key: value * (torch.arange(value.numel()).view(value.shape) % 2) for key, value in tensors.items()}

    trained = train_locally(model, LOSS, data, spec, torch.Generator()).state_dict()
    state, images = honest(data, spec, LOSS, message=pruned)(model, 0, torch.Generator())
    for key, value in state.items():
        odd = torch.arange(value.numel()).view(value.shape) % 2 == 1
        wanted = torch.where(odd, trained[key], model.state_dict()[key]) if "running" not in key else trained[key]
        assert images == 6 and (torch.equal(value, wanted) or key.endswith("tracked"))
