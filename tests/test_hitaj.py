"""The GAN attack of a client: its roles, its objectives, its schedule; and that it never owns what it is after."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from federated_toys import LOSS, held, small
from toys import ROOT

from leakboard import config
from leakboard.attack import contract
from leakboard.models import build
from leakboard.models.dcgan import drawing, smoothed
from leakboard.recipes.classifier import state_sha
from leakboard.threat import LocalTraining, Participation, Public, Turn

HITAJ = contract.load(ROOT / "baselines" / "hitaj" / "attack.py")
MODULE = sys.modules[HITAJ.__module__]
CLASSES, SIDE, OWN = 3, 8, 12
LOCAL = LocalTraining(learning_rate=0.05, steps=2, batch=6)


class Federation:
    """Live rounds of one client: every model is the answer to the one before; what is sent is kept."""

    def __init__(self, rounds: int = 3, budget: int | None = None, target: int = 0) -> None:
        self.model, self.rounds, self.sent = self.fresh(), rounds, []
        rng = torch.Generator().manual_seed(4)
        labels = torch.arange(OWN) % 2 + 1  # of classes 1 and 2
        self.own = Public(torch.rand(OWN, 1, SIDE, SIDE, generator=rng), labels)
        self.seen = Participation(
            model=copy.deepcopy(self.model), loss=LOSS, shape=(4, 1, SIDE, SIDE), classes=CLASSES, budget=budget,
            turns=self.turns, target=target, local=LOCAL,
        )  # fmt: skip

    @staticmethod
    def fresh():
        with torch.random.fork_rng():
            torch.manual_seed(2)
            return build("cnn3", (1, SIDE, SIDE), CLASSES + 1, 2)

    def turns(self):
        for number in range(self.rounds):
            turn = Turn(number, copy.deepcopy(self.model), self.own, lambda state: dict(state))
            yield turn
            self.sent.append(None if turn.answer is None else copy.deepcopy(turn.answer))
            if turn.answer is not None:
                self.model.load_state_dict(turn.answer)


def attack(**settings):
    return HITAJ(**{"begin": 0, "steps": 2, "drawn": 8, "injected": 5, "noise": 6, "width": 4, **settings})


def lived(rounds: int = 3, budget: int | None = None, **settings):
    federation = Federation(rounds, budget)
    got = attack(**settings).reconstruct(federation.seen, torch.Generator().manual_seed(1))
    return federation, got


@pytest.fixture
def trained_on(monkeypatch) -> list:
    """(images, labels) of every local training of the attack."""
    caught, true = [], MODULE.descend

    def kept(model, loss, images, labels, *rest):
        caught.append((images.clone(), labels.clone()))
        true(model, loss, images, labels, *rest)

    monkeypatch.setattr(MODULE, "descend", kept)
    return caught


def test_an_active_client_injects_generated_images_as_the_extra_class(trained_on):
    federation, _ = lived()
    for images, labels in trained_on:
        assert torch.equal(images[:OWN], federation.own.images) and torch.equal(labels[:OWN], federation.own.labels)
        assert labels[OWN:].tolist() == [CLASSES] * 5 and len(images) == len(labels)
    first, last = trained_on[0][0][OWN:], trained_on[-1][0][OWN:]
    assert not torch.equal(first, last), "replaced in every round"
    assert all(sent is not None for sent in federation.sent)


def test_injected_images_may_pile_up_and_begin_later(trained_on):
    lived(piled=True, begin=1)
    assert [len(labels) - OWN for _, labels in trained_on] == [0, 5, 10]
    assert torch.equal(trained_on[2][0][OWN : OWN + 5], trained_on[1][0][OWN:]), "the earlier ones stay as they were"


def test_a_passive_client_sends_what_an_honest_one_would(trained_on):
    """Written out for the first round: two steps of SGD over its own images, in an order drawn after the generator."""
    federation, _ = lived(1, role="passive", trained=True, steps=0)
    ((images, labels),) = trained_on
    assert torch.equal(images, federation.own.images) and torch.equal(labels, federation.own.labels)
    wanted = federation.fresh()
    rng = torch.Generator().manual_seed(1)
    drawing((1, SIDE, SIDE), 6, 4, rng, True)
    sgd = torch.optim.SGD(wanted.parameters(), LOCAL.learning_rate)
    for chosen in torch.randperm(OWN, generator=rng).split(LOCAL.batch):
        sgd.zero_grad()
        LOSS(wanted(images[chosen]), labels[chosen]).backward()
        sgd.step()
    assert state_sha(federation.sent[0]) == state_sha(wanted.state_dict())


def test_a_free_rider_sends_nothing_and_still_trains_its_generator(trained_on):
    federation, got = lived(role="free_rider")
    assert federation.sent == [None] * 3 and not trained_on
    assert not torch.equal(got.images, lived(role="free_rider", steps=0)[1].images)


def test_a_deceptive_client_trains_on_noise_alone(trained_on):
    federation, _ = lived(role="deceptive")
    for images, labels in trained_on:
        assert len(images) == OWN and set(labels.tolist()) <= set(range(CLASSES))
        assert not (images[:, None] == federation.own.images).all((2, 3, 4)).any()
    assert state_sha(federation.sent[0]) != state_sha(federation.fresh().state_dict())


def test_the_untrained_control_takes_no_part():
    federation, got = lived(trained=False)
    assert federation.sent == [] and got.images.shape == (4, 1, SIDE, SIDE)
    rng = torch.Generator().manual_seed(1)
    artist = drawing((1, SIDE, SIDE), 6, 4, rng, True)
    with torch.no_grad():
        assert torch.equal(got.images, artist(torch.randn(8, 6, generator=rng))[:4])


def test_who_owns_the_target_has_nothing_to_steal():
    with pytest.raises(ValueError, match="own images are of the target class 1, expected none of it"):
        attack().reconstruct(Federation(target=1).seen, torch.Generator().manual_seed(1))


# ---------------------------------------------------------------------------------------------------------------------
# The generator's objective.


def objective(images, **settings):
    return attack(**settings).value(Federation.fresh().eval(), images, 0, LOSS)


@pytest.mark.parametrize("name", ["cross_entropy", "logit", "largest", "confidence"])
def test_the_objective_is_what_its_name_says(name):
    images = torch.rand(6, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    logits = Federation.fresh().eval()(images)
    wanted = {
        "cross_entropy": -logits.log_softmax(1)[:, 0].mean(),
        "logit": -logits[:, 0].mean(),
        "largest": -logits.max(1).values.mean(),
        "confidence": -(logits.exp() / logits.exp().sum(1, keepdim=True))[:, 0].mean(),
    }
    torch.testing.assert_close(objective(images, objective=name), wanted[name])
    assert len({float(value.detach()) for value in wanted.values()}) == 4


def test_diversity_is_the_distance_of_features_between_halves():
    images = torch.rand(6, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    model = Federation.fresh().eval()
    features = model[:-1](images)
    distance = sum((features[i] - features[i + 3]).abs().mean() for i in range(3)) / 3
    torch.testing.assert_close(
        objective(images, diversity=0.7), objective(images) - 0.7 * distance, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("detached", [False, True])
def test_diversity_has_a_gradient_in_the_generator_unless_it_is_detached(detached):
    """As the public code has it the term moves the loss and trains nothing."""
    rng = torch.Generator().manual_seed(1)
    artist = drawing((1, SIDE, SIDE), 6, 4, rng, True)
    noise, slopes = torch.randn(8, 6, generator=rng), []
    for weight in (0.0, 1.0):
        value = objective(artist(noise), diversity=weight, detached=detached)
        slopes.append(torch.autograd.grad(value, list(artist.parameters())))
    moved = max(float((one - other).abs().max()) for one, other in zip(*slopes, strict=True))
    assert (moved == 0) == detached and max(float(part.abs().max()) for part in slopes[0]) > 0


@pytest.mark.parametrize("against", ["received", "local"])
def test_the_generator_meets_the_model_as_received_unless_it_is_told_otherwise(against, monkeypatch):
    met, true = [], HITAJ.value

    def kept(self, model, *rest):
        assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
        met.append(state_sha(model.state_dict()))
        return true(self, model, *rest)

    monkeypatch.setattr(HITAJ, "value", kept)
    federation, _ = lived(against=against)
    received = [federation.fresh().state_dict(), *federation.sent[:-1]]
    wanted = [state_sha(state) for state in (received if against == "received" else federation.sent)]
    assert met == [sha for sha in wanted for _ in range(2)], "two steps a round, and no step changes the model"


def test_steps_begin_late_and_grow_up_to_the_most():
    steps = [attack(begin=2, steps=3, growth=2, most=6)._steps(number) for number in range(6)]
    assert steps == [0, 0, 3, 5, 6, 6]
    assert attack(begin=0, steps=90, most=60)._steps(5) == 90, "the most is of what grows"


@pytest.mark.parametrize("budget", [2, 7, 30])
def test_the_attack_keeps_within_its_budget(budget):
    """Passes are charged by the benchmark's batch of four; what is not paid for is left out, and nothing fails."""
    passed = []
    federation = Federation(3, budget)

    def charge(module, given, _):
        passed.append(-(-len(given[0]) // 4))

    federation.model.register_forward_hook(charge)
    got = attack().reconstruct(federation.seen, torch.Generator().manual_seed(1))
    assert 0 < sum(passed) <= budget and len(federation.sent) == 3
    assert got.images.shape == (4, 1, SIDE, SIDE)


def test_where_it_cannot_run_it_says_why():
    asked = config.benchmark("tanh_mnist_participation", "quick")
    blind = asked.model_copy(
        update={"threat": asked.threat.model_copy(update={"knows": ("batch_size", "public_data")})}
    )
    full = asked.model_copy(update={"network": asked.network.model_copy(update={"further": 0})})
    assert HITAJ().skips(asked) is None and "not told" in HITAJ().skips(blind)
    assert "no output" in HITAJ().skips(full) and HITAJ(role="passive").skips(full) is None


# ---------------------------------------------------------------------------------------------------------------------
# Networks.


def test_the_network_has_as_many_parameters_as_is_told_of_the_papers():
    sizes = [sum(p.numel() for p in build("tanh", (1, 28, 28), classes).parameters()) for classes in (10, 11)]
    assert sizes == [105_506, 105_707]


def test_the_blur_is_binomial_and_leaves_what_is_flat():
    point = torch.zeros(1, 2, 5, 5)
    point[0, 1, 2, 2] = 16
    assert smoothed(point)[0, 1, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert not smoothed(point)[0, 0].any(), "each channel by itself"
    torch.testing.assert_close(smoothed(torch.full((2, 1, 4, 4), 0.3)), torch.full((2, 1, 4, 4), 0.3))
    rng = torch.Generator
    plain, blurred = (drawing((1, 8, 8), 6, 4, rng().manual_seed(1), smooth) for smooth in (False, True))
    noise = torch.randn(3, 6)
    assert state_sha(plain.state_dict()) == state_sha(blurred.state_dict()), "nothing of it is trained"
    torch.testing.assert_close(blurred(noise), smoothed(plain(noise).logit()).sigmoid(), rtol=1e-3, atol=1e-4)


def test_adam_begins_afresh_in_every_round():
    from leakboard.config import Federation as Spec
    from leakboard.federation.clients import train_locally

    model, data = small(), held(6)
    for _ in range(2):
        wanted = copy.deepcopy(model)
        adam = torch.optim.Adam(wanted.parameters(), 0.01)
        for _ in range(3):
            adam.zero_grad()
            LOSS(wanted(data.images), data.labels).backward()
            adam.step()
        spec = Spec(learning_rate=0.01, optimiser="adam", epochs=3)
        model = train_locally(model, LOSS, data, spec, torch.Generator())
        assert state_sha(model.state_dict()) == state_sha(wanted.state_dict())
    with pytest.raises(ValueError, match="`momentum` is of `optimiser: sgd`"):
        Spec(learning_rate=0.01, optimiser="adam", momentum=0.5)
