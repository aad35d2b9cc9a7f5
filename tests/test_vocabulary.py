"""Every kind of observation, end to end: it holds what the threat model promises and nothing more."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from toys import GRAY, NOTHING, ROOT, observed, question, toy, trial

from leakboard.config import Benchmark, Federation
from leakboard.federation import rounds as federation
from leakboard.recipes.classifier import state_sha
from leakboard.rng import generator
from leakboard.threat import ThreatModel
from leakboard.victim.leak import gradient
from leakboard.victim.network import network
from leakboard.victim.secrets import Secret

KINDS = ["gradient", "update", "sequence", "participation", "released"]
NAMES = ["Gradient", "ModelUpdate", "ModelSequence", "Participation", "ReleasedModel"]
SPEC = {"clients": 3, "rounds": 2, "learning_rate": 0.05, "steps": 1}


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def clients() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def asked(sees: str, knows: tuple[str, ...] = (), **more) -> Benchmark:
    parts = {"batch": 2, "federation": SPEC, **more}
    return question(sees, {"knows": knows, **parts.pop("threat", {})}, **parts)


@pytest.mark.parametrize("knows", [(), ("labels", "local_training", "clients")], ids=["nothing", "all"])
@pytest.mark.parametrize(("sees", "kind"), zip(KINDS, NAMES, strict=True))
def test_seen_holds_what_is_promised_and_not_more(sees, kind, knows, tmp_path):
    """Checked from inside an attack: a false word fails the trial and shows up in its reason."""
    body = f"""
    assert type(seen) is {kind}
    assert seen.shape == (2, 1, 8, 8) and seen.classes == 10 and seen.budget == 20
    assert len(seen.public.images) == len(seen.public.labels) == 8
    assert (seen.labels is not None) == ({"labels" in knows})
    if {sees in ("update", "sequence")}:
        assert (seen.local is not None) == ({"local_training" in knows})
    if {sees == "sequence"}:
        assert seen.clients == ({3 if "clients" in knows else None})
    assert "observer" in vars(seen) and not [p for p in seen.model.parameters() if p.grad is not None]
    {GRAY}
    """
    line = trial(toy(tmp_path, body, kind), asked(sees, knows)).line
    assert line["status"] == "ok", line.get("reason")
    assert line["mse"] is not None and (line["gradient_norm"] is not None) == (sees in ("gradient", "update"))


def test_an_attack_on_another_kind_is_skipped_with_the_reason(tmp_path):
    line = trial(toy(tmp_path, GRAY, "ModelUpdate"), asked("gradient")).line
    assert (line["status"], line["reason"]) == ("skipped", "works on ModelUpdate, the benchmark shows Gradient")
    assert trial(toy(tmp_path, GRAY, "Seen"), asked("sequence")).line["status"] == "ok"


def test_the_attacks_own_reason_is_recorded(tmp_path):
    methods = "def skips(self, benchmark):\n    return f'not on {benchmark.batch} images'"
    line = trial(toy(tmp_path, GRAY, methods=methods), asked("gradient")).line
    assert (line["status"], line["reason"]) == ("skipped", "not on 2 images")


def test_unknown_knowledge_is_refused():
    with pytest.raises(ValueError, match="unknown knowledge"):
        ThreatModel("server", "honest", object, frozenset({"the images"}))


def test_the_gradient_belongs_to_the_model_and_the_secret():
    hidden, model, seen = observed(asked("gradient"))
    assert state_sha(seen.model.state_dict()) == state_sha(model.state_dict()) and seen.model is not model
    assert not {p.data_ptr() for p in seen.model.parameters()} & {p.data_ptr() for p in model.parameters()}
    loss = nn.functional.cross_entropy(seen.model(hidden.images), hidden.labels)
    wanted = torch.autograd.grad(loss, list(seen.model.parameters()))
    for got, true in zip(seen.gradient, wanted, strict=True):
        torch.testing.assert_close(got, true, rtol=1e-6, atol=1e-8)


def double(secret: Secret, model: nn.Module) -> tuple[Secret, nn.Module]:
    return Secret(secret.images.double(), secret.labels), copy.deepcopy(model).double()


def test_one_local_step_is_the_gradient_times_the_rate():
    hidden, model = double(*observed(asked("gradient"))[:2])
    local = federation.train_locally(model, nn.CrossEntropyLoss(), hidden, Federation(learning_rate=0.05), clients())
    slope = gradient(model, nn.CrossEntropyLoss(), hidden)
    for change, part in zip(federation.difference(model, local), slope, strict=True):
        torch.testing.assert_close(change, -0.05 * part, rtol=1e-10, atol=1e-14)


def test_known_steps_are_the_steps_that_were_made():
    """Two epochs of two passes over three images in mini-batches of two: eight updates."""
    asked_ = asked("gradient", batch=3)
    hidden, model = double(*observed(asked_)[:2])
    spec = Federation(learning_rate=0.05, steps=2, epochs=2, batch=2, momentum=0.5, weight_decay=0.01, shuffle=False)
    known = federation.known_training(spec, 3)
    assert (known.steps, known.epochs, known.batch, known.learning_rate) == (8, 2, 2, 0.05)
    by_hand = copy.deepcopy(model)
    velocity = [torch.zeros_like(p) for p in by_hand.parameters()]
    for step in range(known.steps):
        part = slice(0, 2) if step % 2 == 0 else slice(2, 3)
        slope = gradient(by_hand, nn.CrossEntropyLoss(), Secret(hidden.images[part], hidden.labels[part]))
        with torch.no_grad():
            for p, g, v in zip(by_hand.parameters(), slope, velocity, strict=True):
                v.mul_(known.momentum).add_(g + known.weight_decay * p)
                p.sub_(known.learning_rate * v)
    local = federation.train_locally(model, nn.CrossEntropyLoss(), hidden, spec, clients())
    for got, true in zip(local.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(got, true, rtol=1e-10, atol=1e-12)


def test_averaging_equal_clients_changes_nothing():
    state = nn.BatchNorm1d(3).state_dict()
    assert state_sha(federation.average([state, state, state])) == state_sha(state)
    other = {key: value + 2 for key, value in state.items()}
    mean = federation.average([state, other])
    assert torch.equal(mean["weight"], state["weight"] + 1) and mean["num_batches_tracked"] == 0


def test_peers_share_the_secret_evenly_or_not_at_all():
    hidden = observed(asked("gradient", batch=4))[0]
    parts = federation.peers(hidden, 3)
    assert torch.equal(torch.cat([part.images for part in parts]), hidden.images) and len(parts) == 2
    with pytest.raises(ValueError, match="do not spread evenly"):
        federation.peers(hidden, 4)


def test_update_turns_back_into_the_gradient_that_gives_the_label(tmp_path):
    body = """
    first = [-part / (seen.local.learning_rate * seen.local.steps) for part in seen.update]
    return Reconstruction(torch.empty(0, *seen.shape[1:]), first[-1].argmin().view(1))
    """
    path = toy(tmp_path, body, "ModelUpdate")
    for number in range(3):
        question_ = asked("update", ("local_training",), batch=1, federation={"learning_rate": 0.01, "steps": 3})
        line = trial(path, question_, number).line
        assert line["status"] == "ok" and line["label_accuracy"] == 1.0 and "mse" not in line


def test_update_needs_a_federation():
    with pytest.raises(ValueError, match="needs `federation`"):
        observed(question("update"))


def test_sequence_is_the_average_of_the_clients():
    question_ = asked("sequence")
    hidden, _, seen = observed(question_)
    assert len(seen.models) == 3 and len(seen.own_update) == 2
    assert state_sha(seen.models[0]) == state_sha(seen.model.state_dict())
    for before, after, own in zip(seen.models, seen.models[1:], seen.own_update, strict=False):
        model = copy.deepcopy(seen.model)
        model.load_state_dict(before)
        updates = [own]
        for peer in federation.peers(hidden, 3):
            local = federation.train_locally(model, seen.loss, peer, federation.federation_of(question_), clients())
            updates.append(federation.difference(model, local))
        for (name, old), *parts in zip(model.named_parameters(), *updates, strict=True):
            torch.testing.assert_close(after[name] - old, torch.stack(parts).mean(0), rtol=1e-4, atol=1e-7)
        assert float(torch.cat([part.flatten() for part in own]).norm()) > 0


def test_own_update_comes_from_public_images():
    question_ = asked("sequence")
    _, model, seen = observed(question_)
    own = federation.Public(seen.public.images[:1], seen.public.labels[:1])  # as many as each of two peers has
    local = federation.train_locally(model, seen.loss, own, federation.federation_of(question_), clients())
    for got, true in zip(seen.own_update[0], federation.difference(model, local), strict=True):
        assert torch.equal(got, true)


@pytest.mark.parametrize("answered", [True, False])
def test_answers_of_a_live_client_reach_the_average(answered):
    """An answer of zeros leaves the honest clients' share; a turn left unanswered counts as no change."""
    question_ = asked("participation")
    hidden, model, seen = observed(question_)
    rounds = []
    for turn in seen:
        rounds.append(copy.deepcopy(turn.model.state_dict()))
        assert torch.equal(turn.own_data.images, seen.public.images[:1]) and turn.round == len(rounds) - 1
        if answered:
            turn.submit({key: torch.zeros_like(value) for key, value in turn.model.state_dict().items()})
    assert len(rounds) == 2 and list(seen) == [], "a client lives through each round once"
    assert state_sha(rounds[0]) == state_sha(model.state_dict())
    spec = federation.federation_of(question_)
    honest = [
        federation.train_locally(model, seen.loss, part, spec, clients()).state_dict()
        for part in federation.peers(hidden, 3)
    ]
    for key, value in rounds[1].items():
        mine = torch.zeros_like(value) if answered else rounds[0][key]
        torch.testing.assert_close(value, torch.stack([mine, *(state[key] for state in honest)]).mean(0))


def test_a_state_that_does_not_fit_is_refused_and_leaves_no_answer():
    turn = next(iter(observed(asked("participation"))[2]))
    state = turn.model.state_dict()
    short = {key: value for key, value in list(state.items())[1:]}
    bent = {**state, next(iter(state)): torch.zeros(2, 2)}
    for wrong in (short, bent, {**state, "more": torch.zeros(1)}):
        with pytest.raises(ValueError, match="does not fit the global model"):
            turn.submit(wrong)
        assert turn.answer is None
    turn.submit(state)
    next(iter(state.values())).zero_()
    assert state_sha(turn.answer) != state_sha(state), "an answer is a copy"


def test_participation_runs_end_to_end(tmp_path):
    body = """
    for turn in seen:
        turn.submit({key: -value for key, value in turn.model.state_dict().items()})
    assert turn.round == 1
    return Reconstruction(seen.public.images[:2])
    """
    line = trial(toy(tmp_path, body, "Participation"), asked("participation")).line
    assert line["status"] == "ok", line.get("reason")


def test_white_box_query_carries_gradients(tmp_path):
    body = """
    x = torch.rand(seen.shape, generator=rng).requires_grad_()
    confidence = seen.query(x)
    assert torch.equal(confidence, seen.model(x).softmax(1)) and len(list(seen.model.parameters())) > 0
    (slope,) = torch.autograd.grad(confidence[:, seen.target].log().sum(), x)
    assert float(slope.abs().sum()) > 0
    return Reconstruction((x + slope.sign()).detach().clamp(0, 1))
    """
    line = trial(toy(tmp_path, body, "ReleasedModel"), asked("released", threat={"access": "white"})).line
    assert line["status"] == "ok", line.get("reason")


def test_black_box_gives_confidences_and_no_weights(tmp_path):
    body = """
    assert seen.access == "black" and not list(seen.model.parameters()) and not list(seen.model.buffers())
    x = torch.rand(5, *seen.shape[1:], generator=rng).requires_grad_()
    confidence = seen.query(x)
    assert confidence.shape == (5, 10) and not confidence.requires_grad
    assert torch.allclose(confidence.sum(1), torch.ones(5))
    return Reconstruction(x[:2].detach())
    """
    question_ = asked("released", threat={"access": "black"})
    line = trial(toy(tmp_path, body, "ReleasedModel"), question_).line
    assert line["status"] == "ok", line.get("reason")
    hidden, model, seen = observed(question_, 3)
    assert seen.target == 3 and set(hidden.labels.tolist()) == {3}
    torch.testing.assert_close(seen.query(hidden.images), model(hidden.images).softmax(1).detach())


CRAFTED = """
def craft(self, model, public, rng):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        for part in net.parameters():
            part.copy_(torch.rand(part.shape, generator=rng))
    return net
"""
READ_OFF = """
weight, bias = seen.gradient
row = bias.abs().argmax()
return Reconstruction((weight[row] / bias[row]).view(seen.shape))
"""


def test_a_malicious_server_sends_out_what_it_crafted(tmp_path):
    """A linear layer on the pixels gives one image away in closed form: the observation belongs to it."""
    path = toy(tmp_path, READ_OFF, methods=CRAFTED)
    question_ = question("gradient", {"conduct": "malicious"})
    for number in range(2):
        outcome = trial(path, question_, number)
        assert outcome.line["status"] == "ok" and outcome.line["mse"] < 1e-10 and outcome.line["exact"] == 1
        wanted, rng = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), generator("craft", question_.seed, number)
        with torch.no_grad():
            for part in wanted.parameters():
                part.copy_(torch.rand(part.shape, generator=rng))
        assert outcome.line["model_sha"] == state_sha(wanted.state_dict())


def test_an_honest_server_crafts_nothing(tmp_path):
    outcome = trial(toy(tmp_path, GRAY, methods=CRAFTED), question("gradient"))
    assert outcome.line["model_sha"] == state_sha(network(question("gradient"), 0).state_dict())
    plain = trial(toy(tmp_path, NOTHING), question("gradient", {"conduct": "malicious"}))
    assert plain.line["model_sha"] == outcome.line["model_sha"], "an attack without `craft` sends the model as it is"
