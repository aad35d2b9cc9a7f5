"""Every kind of observation, end to end: it holds what the threat model promises and nothing more."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import GRAY, NOTHING, ROOT, observed, question, toy, trial

from leakboard.config import Benchmark
from leakboard.recipes.classifier import state_sha
from leakboard.rng import generator
from leakboard.victim.network import network

KINDS = ["gradient", "update", "sequence", "participation", "released"]
NAMES = ["Gradient", "ModelUpdate", "ModelSequence", "Participation", "ReleasedModel"]
SPEC = {"clients": 3, "rounds": 2, "learning_rate": 0.05, "steps": 1}


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


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
    with pytest.raises(ValueError, match=r"threat\.knows: unknown \['the images'\]; there are: auxiliary, batch_norm"):
        question(threat={"knows": ["the images"]})


def test_the_gradient_belongs_to_the_model_and_the_secret():
    hidden, model, seen = observed(asked("gradient"))
    assert state_sha(seen.model.state_dict()) == state_sha(model.state_dict()) and seen.model is not model
    assert not {p.data_ptr() for p in seen.model.parameters()} & {p.data_ptr() for p in model.parameters()}
    loss = nn.functional.cross_entropy(seen.model(hidden.images), hidden.labels)
    wanted = torch.autograd.grad(loss, list(seen.model.parameters()))
    for got, true in zip(seen.gradient, wanted, strict=True):
        torch.testing.assert_close(got, true, rtol=1e-6, atol=1e-8)


def test_update_turns_back_into_the_gradient_that_gives_the_label(tmp_path):
    body = """
    first = [-part / (seen.local.learning_rate * seen.local.steps) for part in seen.update]
    return Reconstruction(torch.empty(0, *seen.shape[1:]), first[-1].argmin().view(1))
    """
    path = toy(tmp_path, body, "ModelUpdate")
    for number in range(3):
        question_ = asked(
            "update",
            ("local_training",),
            batch=1,
            metrics=["label_accuracy"],
            federation={"learning_rate": 0.01, "steps": 3},
        )
        line = trial(path, question_, number).line
        assert line["status"] == "ok" and line["label_accuracy"] == 1.0 and "mse" not in line


def test_update_needs_a_federation():
    with pytest.raises(ValueError, match="needs `federation`"):
        observed(question("update"))


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
