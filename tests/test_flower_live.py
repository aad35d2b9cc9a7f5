"""Attacks as clients of a Flower app hand in what they do as trials, bit for bit: nothing of a round is forgotten."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from leakboard import config
from leakboard.federation.rounds import derived
from leakboard.federation.rules import average
from leakboard.rng import generator, seed_of
from leakboard.run.attacker import Attacker
from leakboard.run.observation import observe
from leakboard.run.trial import Job, attempt
from leakboard.threat import Public
from leakboard.victim import leak
from leakboard.victim.defences import defences_of
from leakboard.victim.network import network
from leakboard.victim.secrets import secret

pytest.importorskip("flwr", reason="leakboard[flower] is not installed")

from leakboard.federation import flower
from leakboard.run import live

ROUNDS = 3


def question(name):
    asked = config.benchmark(name, "quick")
    return asked.model_copy(update={"federation": asked.federation.model_copy(update={"rounds": ROUNDS})})


def victim_of(asked):
    hidden, model = secret(asked, 0), network(asked, 0)
    clients = generator("clients", asked.seed, 0)
    return leak.Victim(hidden, model, torch.nn.CrossEntropyLoss(), clients, defences_of(asked))


def written(folder):
    """What a client does with what it has by a round, in whatever process it lives."""
    return lambda number, got: np.save(folder / f"{number}.npy", got.images.numpy())


def test_an_attack_that_takes_part_is_a_client_app(tmp_path):
    asked = question("tanh_mnist_participation")
    attack = Attacker(config.root() / "baselines" / "hitaj" / "attack.py", {"begin": 1, "steps": 2})
    trial = attempt(Job(asked, "hitaj", "active", attack.path, attack.settings, 1, 0))
    assert trial.line["status"] == "ok" and trial.got is not None
    observed, victim = observe(asked, 0, attack), victim_of(asked)
    held, seed = leak._held(asked, victim), leak._seed(victim)
    own = leak._own(asked, held, observed.seen.public)
    peers = leak._peers(asked.federation, victim._replace(secret=held), seed, asked.federation.clients - 1)
    seen = dataclasses.replace(observed.seen, turns=None, observer=None, meter=None)
    me = live.participant(attack, seen, own, seed_of("attack", asked.seed, 0), written(tmp_path))
    flower.simulated(victim.model, [me, *peers], average, derived(seed), ROUNDS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number}.npy" for number in range(ROUNDS)]
    found = [np.load(tmp_path / f"{number}.npy") for number in range(ROUNDS)]
    assert np.array_equal(found[-1], trial.got.images.numpy())
    assert not np.array_equal(found[-1], found[-2])


def test_an_attack_that_looks_on_is_a_client_app(tmp_path):
    asked = question("lenet_cifar10_sequence")
    attack = Attacker(config.root() / "baselines" / "peer" / "attack.py", {"side": 16, "steps": 10})
    trial = attempt(Job(asked, "peer", "raw", attack.path, attack.settings, 1, 0))
    assert trial.line["status"] == "ok" and trial.got is not None
    seen, victim = observe(asked, 0, attack).seen, victim_of(asked)
    own, seed = leak._own(asked, victim.secret, seen.public), leak._seed(victim)
    peers = leak._peers(asked.federation, victim, seed, asked.federation.clients - 1)
    mine = leak._honest(own, asked.federation, victim)
    me = live.peer(attack, seen, mine, seed_of("attack", asked.seed, 0), written(tmp_path))
    flower.simulated(victim.model, [me, *peers], average, derived(seed), ROUNDS + 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number}.npy" for number in range(1, ROUNDS + 1)]
    assert np.array_equal(np.load(tmp_path / f"{ROUNDS}.npy"), trial.got.images.numpy())


def test_an_attack_that_fails_is_a_failed_client(tmp_path):
    (tmp_path / "bad.py").write_text(
        "from dataclasses import dataclass\nfrom leakboard.threat import Participation, Reconstruction\n\n\n"
        "@dataclass(frozen=True)\nclass Bad:\n    def reconstruct(self, seen: Participation, rng):\n"
        "        for turn in seen:\n            raise ArithmeticError('out of luck')\n"
    )
    asked = question("tanh_mnist_participation")
    attack = Attacker(tmp_path / "bad.py", {})
    seen = dataclasses.replace(observe(asked, 0, attack).seen, turns=None)
    model = network(asked, 0)
    own = Public(torch.rand(2, *seen.shape[1:]), torch.tensor([5, 6]))
    me = live.participant(attack, seen, own, 1, written(tmp_path))
    with pytest.raises(RuntimeError, match=r"the attack failed: .*out of luck"):
        me.answer([model.state_dict()], 0, lambda number: generator("x", number))
