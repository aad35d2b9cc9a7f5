"""Attacks that break the rules: each ends as a failure that names its reason and scores what noise scores."""

from __future__ import annotations

import pytest
import torch
from toys import GRAY, ROOT, question, toy, trial

from leakboard.attack.contract import AttackError
from leakboard.rng import generator
from leakboard.score import match, mse
from leakboard.victim.secrets import secret

# name -> (body of `reconstruct`, status, what the reason must say)
RUDE = {
    "edits its gradient": ("seen.gradient[0].mul_(0.5)\n" + GRAY, "failed", "changed its observation"),
    "edits its labels": ("seen.labels.add_(1)\n" + GRAY, "failed", "changed its observation"),
    "edits public images": ("seen.public.images.zero_()\n" + GRAY, "failed", "changed its observation"),
    "edits its model": (
        "with torch.no_grad():\n    next(seen.model.parameters()).zero_()\n" + GRAY,
        "failed",
        "changed its model",
    ),
    "replaces its model": ("seen.model = copy.deepcopy(seen.model).double()\n" + GRAY, "failed", "changed its model"),
    "global randomness": ("torch.rand(3)\n" + GRAY, "failed", "changed the global random state"),
    "seeds globally": ("torch.manual_seed(1)\n" + GRAY, "failed", "changed the global random state"),
    "not a number": ("return Reconstruction(torch.full(seen.shape, torch.nan))", "failed", "not finite"),
    "infinite": ("return Reconstruction(torch.full(seen.shape, torch.inf))", "failed", "not finite"),
    "raises": ('raise RuntimeError("rude\\nsecond line")', "failed", "RuntimeError: rude"),
    "sleeps": ("time.sleep(30)\n" + GRAY, "timeout", "more than 0.5 s"),
    "computes for ever": ("while True:\n    torch.rand(9, generator=rng)", "timeout", "more than 0.5 s"),
    "spends too much": (
        "for _ in range(10**6):\n    seen.model(torch.zeros(seen.shape))",
        "failed",
        "more than the 20 gradient evaluations",
    ),
    "wrong size": ("return Reconstruction(torch.zeros(2, 1, 7, 8))", "failed", "images have shape (2, 1, 7, 8)"),
    "wrong channels": ("return Reconstruction(torch.zeros(2, 3, 8, 8))", "failed", "images have shape"),
    "too many images": ("return Reconstruction(torch.zeros(3, 1, 8, 8))", "failed", "M <= 2"),
    "no batch": ("return Reconstruction(torch.zeros(1, 8, 8))", "failed", "images have shape"),
    "moves the goal": ("seen.shape = (9, 1, 8, 8)\nreturn Reconstruction(torch.zeros(9, 1, 8, 8))", "failed", "M <= 2"),
    "lifts its budget": (
        "seen.budget = None\nfor _ in range(21):\n    seen.model(torch.zeros(2, 1, 8, 8))",
        "failed",
        "more than the 20 gradient evaluations",
    ),
    "too many labels": ("return Reconstruction(torch.zeros(seen.shape), torch.arange(3))", "failed", "3 labels for 2"),
    "bare tensor": ("return torch.zeros(seen.shape)", "failed", "handed in a Tensor, expected a Reconstruction"),
    "nothing": ("return None", "failed", "handed in a NoneType"),
    "memory": ("raise MemoryError('full')", "out_of_memory", "full"),
    "bad snapshot": ("seen.snapshot(1, torch.zeros(2, 3, 3), 0.0)\n" + GRAY, "failed", "a snapshot has shape"),
}


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def asked():
    return question("gradient", {"knows": ["labels"]}, batch=2, timeout_seconds=0.5)


def noise_mse(number: int) -> list[float]:
    question_ = asked()
    noise = torch.rand(2, 1, 8, 8, generator=generator("attack", question_.seed, number))
    true = secret(question_, number).images
    return mse(true, noise[match(true, noise)]).tolist()


@pytest.mark.parametrize("name", RUDE)
def test_rude_attacks_fail_with_a_reason_and_score_noise(name, tmp_path):
    body, status, reason = RUDE[name]
    before = torch.random.get_rng_state()
    outcome = trial(toy(tmp_path, body), asked(), 1)
    torch.random.set_rng_state(before)
    assert outcome.line["status"] == status, outcome.line.get("reason")
    assert reason in outcome.line["reason"] and "\n" not in outcome.line["reason"]
    assert outcome.line["mse_each"] == noise_mse(1)
    assert outcome.line["mse"] == pytest.approx(sum(noise_mse(1)) / 2, rel=1e-12)


def test_a_polite_attack_on_the_same_question_is_fine(tmp_path):
    line = trial(toy(tmp_path, GRAY), asked(), 1).line
    assert line["status"] == "ok" and line["mse_each"] != noise_mse(1)


def test_a_fault_before_the_attack_is_a_failure_too(tmp_path):
    methods = "def craft(self, model, public, rng):\n    raise RuntimeError('early')"
    question_ = question("gradient", {"knows": ["labels"], "conduct": "malicious"}, batch=2)
    line = trial(toy(tmp_path, GRAY, methods=methods), question_, 1).line
    assert (line["status"], line["reason"]) == ("failed", "Toy.craft: RuntimeError: early")
    assert line["mse_each"] == noise_mse(1)


def test_a_crafted_model_that_breaks_honest_training_is_the_attacks_failure(tmp_path):
    """Robbing the Fed does so on some batches of photographs: the client's message was not finite."""
    methods = "def craft(self, model, public, rng):\n    return model"
    threat, federation = {"conduct": "malicious"}, {"learning_rate": 1e38, "steps": 5}
    question_ = question("update", threat, batch=2, federation=federation)
    line = trial(toy(tmp_path, GRAY, "ModelUpdate", methods), question_, 1).line
    assert line["status"] == "failed" and "cannot be trained" in line["reason"] and "finite" in line["reason"]


@pytest.mark.parametrize("method", ["skips", "prior"])
def test_a_fault_in_what_an_attack_says_of_itself_names_it(method, tmp_path):
    path = toy(tmp_path, GRAY, methods=f"def {method}(self, benchmark):\n    raise RuntimeError('early')")
    with pytest.raises(AttackError, match=rf"Toy\.{method}: RuntimeError: early"):
        trial(path, question("gradient", {"knows": ["prior"]}), 1)


def test_a_failed_guess_of_labels_got_none_right(tmp_path):
    """Where labels are not given, a failure counts as no label found; where they are, there is nothing to find."""
    path = toy(tmp_path, 'raise RuntimeError("rude")')
    assert trial(path, question(batch=2)).line["label_accuracy"] == 0
    assert trial(path, asked()).line["label_accuracy"] is None


def test_one_trial_leaves_no_trace_in_the_next(tmp_path):
    """A rude trial in between: the victims and the numbers of a polite one are the same bits."""
    polite = toy(tmp_path, "return Reconstruction(torch.rand(seen.shape, generator=rng))")
    first = trial(polite, asked()).line
    for name in ("edits its gradient", "edits its model", "global randomness", "edits public images"):
        trial(toy(tmp_path, RUDE[name][0], name="rude"), asked())
    second = trial(polite, asked()).line
    same = ("mse_each", "model_sha", "victim_sha", "gradient_norm")
    assert {key: first[key] for key in same} == {key: second[key] for key in same}
