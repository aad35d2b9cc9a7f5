"""What the runner does around an attack: preparation, snapshots, the clock and the count of evaluations."""

from __future__ import annotations

import pytest
import torch
from toys import GRAY, ROOT, checkout, question, toy, trial

from leakboard.data import DataError


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


PRIOR = """
def prior(self, benchmark):
    from leakboard.config.recipes import Generator

    return Generator(images=benchmark.public_images, noise=4, width=8, epochs=10, batch=8, seed=5)
"""
FROM_PRIOR = """
assert not [p for p in seen.prior.parameters() if p.requires_grad]
return Reconstruction(seen.prior(torch.randn(seen.shape[0], seen.prior.noise, generator=rng)).detach())
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A checkout of its own, in which nothing is trained yet."""
    folder = checkout(tmp_path / "suite", FROM_PRIOR, methods=PRIOR)
    monkeypatch.chdir(folder)
    return folder


def test_a_prior_is_trained_once_on_public_images_and_timed_apart(elsewhere):
    path, asked = elsewhere / "baselines" / "toy" / "attack.py", question(threat={"knows": ["prior"]})
    lines = [trial(path, asked, number).line for number in range(2)]
    assert [line["status"] for line in lines] == ["ok", "ok"], lines[0].get("reason")
    assert lines[0]["prepare_seconds"] == lines[1]["prepare_seconds"] > lines[0]["seconds"] > 0
    assert len(list((elsewhere / "build" / "recipes").glob("*.safetensors"))) == 1
    assert lines[0]["mse"] != lines[1]["mse"]


def test_an_attack_that_needs_a_prior_is_skipped_where_none_is_granted(elsewhere):
    line = trial(elsewhere / "baselines" / "toy" / "attack.py", question()).line
    assert (line["status"], line["reason"]) == ("skipped", "needs a prior, which the benchmark does not grant")


def test_a_prior_of_victims_is_refused(elsewhere):
    path = elsewhere / "baselines" / "toy" / "attack.py"
    path.write_text(path.read_text().replace("benchmark.public_images", "benchmark.data"))
    with pytest.raises(DataError, match=r"the victims of toy and the training images of the prior"):
        trial(path, question(threat={"knows": ["prior"]}))


def test_snapshots_are_copies_at_powers_of_two(tmp_path):
    body = """
    x = torch.zeros(seen.shape)
    for step in range(1, 11):
        x.fill_(step / 10)
        seen.model(x)
        seen.snapshot(step, x, torch.tensor(1.0 / step))
        x.fill_(7.0)
    return Reconstruction(x.fill_(1.0))
    """
    outcome = trial(toy(tmp_path, body), question())
    assert [row["step"] for row in outcome.curve] == [1, 2, 4, 8, 9]
    assert [row["evaluations"] for row in outcome.curve] == [1, 2, 4, 8, 10], "the last one is what was handed in"
    for row in outcome.curve[:-1]:
        wanted = (torch.from_numpy(outcome.pictures[0]).double() - row["step"] / 10).square().mean()
        assert row["mse"] == pytest.approx(float(wanted), rel=1e-5) and row["loss"] == pytest.approx(1 / row["step"])
    seconds = [row["seconds"] for row in outcome.curve]
    assert seconds == sorted(seconds) and seconds[-1] <= outcome.line["seconds"]
    assert outcome.line["evaluations"] == 10


def test_no_code_of_the_attack_runs_while_the_clock_stands_still(tmp_path):
    """Converting a loss would run it, and so would a tensor of a class of its own."""
    body = """
    class Slow:
        def __float__(self):
            time.sleep(0.5)
            return 0.0
    seen.snapshot(1, torch.zeros(seen.shape), Slow())
    return Reconstruction(torch.zeros(seen.shape))
    """
    line = trial(toy(tmp_path, body), question()).line
    assert line["status"] == "failed" and "the loss of a snapshot is a Slow, expected one number" in line["reason"]
    own = """
    class Own(torch.Tensor):
        pass
    seen.snapshot(1, torch.zeros(seen.shape).as_subclass(Own), 0.0)
    """
    line = trial(toy(tmp_path, own + GRAY), question()).line
    assert line["status"] == "failed" and "the images of a snapshot are a Own" in line["reason"]


def test_every_pass_counts_on_copies_of_the_model_too(tmp_path):
    """Simulating local training on a copy of the model is no way around the budget."""
    body = """
    clone = copy.deepcopy(seen.model)
    for _ in range(3):
        clone(torch.zeros(seen.shape)), seen.model(torch.zeros(seen.shape))
    torch.func.functional_call(clone, dict(clone.named_parameters()), (torch.zeros(seen.shape),))
    return Reconstruction(torch.zeros(seen.shape))
    """
    path = toy(tmp_path, body)
    assert trial(path, question(budget=7)).line["evaluations"] == 7
    line = trial(path, question(budget=6)).line
    assert line["status"] == "failed" and "more than the 6 gradient evaluations" in line["reason"]


def test_an_attack_may_not_report_its_own_count(tmp_path):
    info = '{"gradient_evaluations": -3, "loss": 0.25, "restarts": 2, "seconds": 0}'
    body = f"seen.model(torch.zeros(seen.shape))\nreturn Reconstruction(torch.zeros(seen.shape), None, {info})"
    line = trial(toy(tmp_path, body), question()).line
    assert (line["evaluations"], line["loss"], line["restarts"]) == (1, 0.25, 2)


def test_settings_reach_the_attack_and_unknown_ones_do_not(tmp_path):
    path = toy(tmp_path, 'assert self.path == "here"\n' + GRAY)
    assert trial(path, question(), settings={"path": "here"}).line["status"] == "ok"
    with pytest.raises(ValueError, match=r"no setting.*pth.*it has: path"):
        trial(path, question(), settings={"pth": "here"})


def test_fewer_images_than_secrets_score_noise_for_the_rest(tmp_path):
    from leakboard.rng import generator
    from leakboard.score import match

    asked = question(batch=2)
    outcome = trial(toy(tmp_path, "return Reconstruction(torch.zeros(1, *seen.shape[1:]))"), asked)
    noise = torch.rand(2, 1, 8, 8, generator=generator("attack", asked.seed, 0))
    true = torch.from_numpy(outcome.pictures[0])
    noise = noise[match(true, noise)]
    one = [float(image.double().square().mean()) for image in true]
    rest = [float(((a - b).double()).square().mean()) for a, b in zip(true, noise, strict=True)]
    taken = one.index(min(one))
    assert outcome.line["mse_each"][taken] == pytest.approx(one[taken], rel=1e-6)
    assert outcome.line["mse_each"][1 - taken] == pytest.approx(rest[1 - taken], rel=1e-6)
    assert outcome.line["label_accuracy"] is None


@pytest.mark.parametrize("text", ["", "x = 1", "import torch\ndef reconstruct(): pass"])
def test_a_file_without_an_attack_is_refused(text, tmp_path):
    path = tmp_path / "none.py"
    path.write_text(text)
    with pytest.raises(ValueError, match="defines 0 classes"):
        trial(path, question())


def test_a_file_that_cannot_be_imported_is_refused_by_name(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("import nowhere_to_be_found\n")
    with pytest.raises(ValueError, match=r"broken\.py.*nowhere_to_be_found"):
        trial(path, question())


def test_an_annotation_that_is_no_observation_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a kind of Seen"):
        trial(toy(tmp_path, GRAY, kind="int"), question())
