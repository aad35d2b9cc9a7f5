"""A toy attack on every kind of observation, through rounds, recipes, judges and the meter, as a paper's would go."""

from __future__ import annotations

import pytest
import torch
from toys import ROOT, checkout, question, toy, trial

from leakboard.metrics import METRICS
from leakboard.record import trial_lines
from leakboard.record.results import Results
from leakboard.run.rescore import rescore
from leakboard.run.stage import _pictures, reproduce, stages

TRAINED = {
    "network": {"name": "lenet_sigmoid", "weights": "trained"},
    "training": {"epochs": 2, "learning_rate": 0.1, "augment": False},
    "evaluator": {
        "network": {"name": "mlp", "width": 32},
        "training": {"images": {"split": "test", "start": 40}, "epochs": 80, "learning_rate": 0.1, "augment": False},
    },
}
CLASSES = ("evaluator_accuracy", "nearest_victim_mse", "nearest_public_mse", "diversity")
CLASSES += ("evaluator_top5", "lineup_accuracy", "evaluator_confidence", "target_confidence", "nearest_victim_feature")
CLASSES += ("nearest_public_feature", "class_mean_ssim", "class_mean_rank")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A checkout in which nothing is trained yet."""
    folder = checkout(tmp_path / "suite", "return Reconstruction(torch.rand(seen.shape, generator=rng))")
    monkeypatch.chdir(folder)
    return folder


def released(access: str = "white", knows: tuple[str, ...] = (), **more):
    """A classifier trained on the victims themselves; the class is what is to be reconstructed."""
    parts = {"data": {"name": "digits", "split": "train"}, "public": {"split": "test", "count": 40}, "batch": 4}
    parts |= {"training": TRAINED["training"], "network": TRAINED["network"], "evaluator": TRAINED["evaluator"]}
    return question("released", {"access": access, "knows": knows}, metrics=CLASSES, **(parts | more))


SEARCH = """
def prior(self, benchmark):
    from leakboard.config.recipes import Generator

    return Generator(images=benchmark.public_images, noise=8, width=16, epochs=60, batch=20, critic_steps=2, seed=1)
"""
IN_LATENT_SPACE = """
z = torch.randn(seen.shape[0], seen.prior.noise, generator=rng).requires_grad_()
labels = torch.full(seen.shape[:1], seen.target)
adam = torch.optim.Adam([z], 0.1)
for step in range(1, 16):
    loss = seen.loss(seen.model(seen.prior(z)), labels)
    adam.zero_grad(), loss.backward(), adam.step()
return Reconstruction(seen.prior(z).detach())
"""


def test_a_class_level_attack_on_a_released_model_with_a_prior(elsewhere):
    """GMI's shape: a generator of public images, searched by the released model, judged by another classifier."""
    path = toy(elsewhere, IN_LATENT_SPACE, "ReleasedModel", SEARCH)
    lines = [trial(path, released(knows=("prior",)), number).line for number in range(3)]
    assert [line["status"] for line in lines] == ["ok"] * 3, lines[0].get("reason")
    for line in lines:
        assert all(line[name] is not None for name in CLASSES) and "mse" not in line and "label_accuracy" not in line
        assert 0 <= line["evaluator_accuracy"] <= 1 and line["diversity"] > 0
        assert line["evaluations"] == 15, "four images a pass, as many as the benchmark's: one evaluation each"
        assert line["prepare_seconds"] > 0
    kept = {path.stem for path in (elsewhere / "build" / "recipes").glob("*.safetensors")}
    assert len(kept) == 3, "victim, evaluator and prior, each trained once"


def test_public_digits_and_noise_are_judged_as_what_they_are(elsewhere):
    """The evaluator knows digits; public ones are nearer to public images than to victims, and noise is no digit."""
    body = """
    mine = seen.public.images[seen.public.labels == seen.target][:4]
    return Reconstruction(mine)
    """
    asked = released()
    public, noise = trial(toy(elsewhere, body, "ReleasedModel"), asked, 2).line, []
    assert public["evaluator_accuracy"] >= 0.75 and public["nearest_public_mse"] == 0 < public["nearest_victim_mse"]
    failed = trial(toy(elsewhere, "raise RuntimeError('rude')", "ReleasedModel", name="rude"), asked, 2).line
    noise = trial(
        toy(elsewhere, "return Reconstruction(torch.rand(seen.shape, generator=rng))", "ReleasedModel", name="n"),
        asked,
        2,
    ).line
    assert failed["status"] == "failed"  # and scored as the same noise, but for the rounding of features
    assert [failed[name] for name in CLASSES] == pytest.approx([noise[name] for name in CLASSES], rel=1e-6)
    assert failed["nearest_victim_mse"] > 2 * public["nearest_victim_mse"]


BLACK = """
x = torch.full((1, *seen.shape[1:]), 0.5)
asked = 0
for step in range(100):
    tries = (x + 0.3 * torch.randn(8, *x.shape[1:], generator=rng)).clamp(0, 1)
    confidence = seen.query(tries)[:, seen.target]
    x = tries[confidence.argmax()][None]
return Reconstruction(x)
"""


@pytest.mark.parametrize(("budget", "status"), [(800, "ok"), (799, "failed")])
def test_a_black_box_is_charged_by_the_image_and_its_budget_ends_it(budget, status, elsewhere):
    line = trial(toy(elsewhere, BLACK, "ReleasedModel"), released("black", budget=budget)).line
    assert (line["status"], line["evaluations"]) == (status, 800), line.get("reason")
    if status == "failed":
        assert "more than the 799 gradient evaluations" in line["reason"]


def test_the_clock_stands_still_while_a_black_box_answers(elsewhere, monkeypatch):
    from leakboard.victim import leak

    def slow(benchmark, victim, shared, true=leak._released):
        import time

        seen = true(benchmark, victim, shared)
        answer = seen.query
        seen.query = lambda images: (time.sleep(0.3), answer(images))[1]
        return seen

    monkeypatch.setitem(leak._LEAKS, leak.ReleasedModel, slow)
    body = "seen.query(torch.zeros(2, *seen.shape[1:]))\nreturn Reconstruction(torch.rand(seen.shape, generator=rng))"
    line = trial(toy(elsewhere, body, "ReleasedModel"), released("black")).line
    assert line["status"] == "ok" and line["seconds"] < 0.3 and line["evaluations"] == 2


LIVE = """
gains = []
for turn in seen:
    local = copy.deepcopy(turn.model)
    sgd = torch.optim.SGD(local.parameters(), 0.1)
    sgd.zero_grad()
    seen.loss(local(turn.own_data.images), turn.own_data.labels).backward()
    sgd.step()
    turn.model(torch.zeros(9, *seen.shape[1:]))
    turn.submit(local.state_dict())
assert turn.round == 2
return Reconstruction(turn.own_data.images[:1].expand(seen.shape))
"""


def test_a_live_client_over_three_rounds_with_five_clients(tmp_path, monkeypatch):
    """Passes through the models of its turns are charged by the image: one of 2 and one of 9 images for B = 8."""
    monkeypatch.chdir(ROOT)
    spec = {"clients": 5, "rounds": 3, "learning_rate": 0.05, "epochs": 2}
    asked = question("participation", {"attacker": "client", "conduct": "malicious"}, batch=8, federation=spec)
    line = trial(toy(tmp_path, LIVE, "Participation"), asked).line
    assert line["status"] == "ok", line.get("reason")
    assert line["evaluations"] == 3 * (1 + 2) and line["mse"] > 0
    short = trial(toy(tmp_path, LIVE, "Participation"), asked.model_copy(update={"budget": 5})).line
    assert short["status"] == "failed" and "more than the 5 gradient evaluations" in short["reason"]


def test_the_clock_stands_still_while_honest_clients_train(tmp_path, monkeypatch):
    from leakboard.federation import clients

    monkeypatch.chdir(ROOT)
    true = clients.train_locally

    def slow(*given, **more):
        import time

        time.sleep(0.2)
        return true(*given, **more)

    monkeypatch.setattr(clients, "train_locally", slow)
    spec = {"clients": 3, "rounds": 2, "learning_rate": 0.05}
    asked = question("participation", {"attacker": "client"}, batch=2, federation=spec)
    body = "for turn in seen:\n    pass\nreturn Reconstruction(torch.rand(seen.shape, generator=rng))"
    line = trial(toy(tmp_path, body, "Participation"), asked).line
    assert line["status"] == "ok" and line["seconds"] < 0.2, "two honest clients in two rounds slept 0.8 s"


PEER = """
K = seen.clients
total = [K * (after - before) for before, after in zip(*(list(m[k] for k in names) for m in seen.models[:2]))]
theirs = [change - own for change, own in zip(total, seen.own_update[0])]
slope = [-change / ((K - 1) * seen.local.learning_rate * seen.local.steps) for change in theirs]
assert all(torch.isfinite(part).all() for part in slope) and float(slope[-1].abs().sum()) > 0
return Reconstruction(torch.rand(seen.shape, generator=rng), slope[-1].argsort()[: seen.shape[0]])
"""


def test_a_curious_client_reads_its_peers_out_of_two_models(tmp_path, monkeypatch):
    """Two peers with one image each: what is left of the update without its own part names both labels."""
    monkeypatch.chdir(ROOT)
    spec = {"clients": 3, "rounds": 2, "learning_rate": 0.05}
    knows = {"knows": ["clients", "local_training"], "attacker": "client"}
    asked = question("sequence", knows, batch=2, federation=spec)
    body = "names = [name for name, _ in seen.model.named_parameters()]\n" + PEER
    lines = [trial(toy(tmp_path, body, "ModelSequence"), asked, number).line for number in range(4)]
    assert [line["status"] for line in lines] == ["ok"] * 4, lines[0].get("reason")
    named = torch.tensor([line["label_accuracy"] for line in lines])
    assert float(named.mean()) >= 0.5, "images are matched by chance here, and labels with them"


def test_a_new_metric_is_scored_without_attacking_again(elsewhere):
    """What was handed in is judged again; the attack is gone, so nothing else could have made the numbers."""
    results = Results.at("quick", elsewhere / "out")
    (stage,) = stages(results, "toy", None)
    assert reproduce([stage], workers=0) == 4
    path = stage.folder / "trials.csv"
    before = trial_lines.read(path)
    trial_lines.write(path, before.assign(ssim=float("nan"), psnr=1.0))
    text = (elsewhere / "baselines/toy/attack.py").read_text()
    assert rescore(stage) == (4, 0)
    after = trial_lines.read(path)
    judged = [name for name, metric in METRICS.items() if metric.truth in ("images", "labels")]
    assert after[judged].equals(before[judged]) and after["seconds"].equals(before["seconds"])
    assert (elsewhere / "baselines/toy/attack.py").read_text() == text


def test_what_another_run_handed_in_is_not_judged_as_this_ones(elsewhere):
    results = Results.at("quick", elsewhere / "out")
    (stage,) = stages(results, "toy", None)
    reproduce([stage], workers=0)
    (stage.reconstructions / "only-1.npz").write_bytes((stage.reconstructions / "only-2.npz").read_bytes())
    (stage.reconstructions / "only-3.npz").unlink()
    assert rescore(stage) == (2, 2)


def test_a_grid_shows_no_trial_that_the_benchmark_no_longer_has(tmp_path, monkeypatch):
    suite = checkout(tmp_path / "suite", "return Reconstruction(torch.rand(seen.shape, generator=rng))")
    monkeypatch.chdir(suite)
    results = Results.at("quick", tmp_path / "here")
    reproduce(stages(results, "toy", None), workers=0)
    (stage,) = stages(results, "toy", None)
    assert set(_pictures(stage)["only"]) == {0, 1, 2, 3}
    asked = suite / "benchmarks" / "toy_gradient.yaml"
    asked.write_text(asked.read_text().replace("trials: 4", "trials: 2"))
    (stage,) = stages(results, "toy", None)
    assert set(_pictures(stage)["only"]) == {0, 1}
