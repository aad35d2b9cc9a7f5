"""From a benchmark and a trial's number to what is hidden and what the attacker sees of it. The one way there is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from leakboard.config import Benchmark
from leakboard.federation.rounds import MessageError
from leakboard.rng import generator, seed_of
from leakboard.run import trained
from leakboard.run.attacker import Attacker, CraftError
from leakboard.threat import KINDS, Public, Seen
from leakboard.victim.leak import leak
from leakboard.victim.network import network
from leakboard.victim.secrets import Secret, public, secret, shape_and_classes


@dataclass
class Observation:
    """hidden: the truth, on the CPU. model: the victim's network. seen: all that the attack gets."""

    hidden: Secret
    model: nn.Module
    seen: Seen


def observe(
    benchmark: Benchmark,
    trial: int,
    attack: Attacker | None = None,
    device: torch.device | str = "cpu",
    hidden: Secret | None = None,
) -> Observation:
    """What `attack` sees of one trial; without one, what anybody would. hidden: in place of the trial's own secret.

    A malicious server's attack sends out the model that it crafts; an attack that names a prior gets it trained.
    CraftError where honest training of what it crafted leads to a message that no round takes.
    """
    hidden, device = hidden or secret(benchmark, trial), torch.device(device)
    shown, model = public_on(benchmark, device), network(benchmark, trial).to(device)
    crafting = attack if benchmark.threat.conduct == "malicious" else None
    if crafting is not None:
        seed = seed_of("craft", benchmark.seed, trial)
        model = crafting.craft(model, shown, seed, hidden.images.shape[1:]).to(device)
    clients = generator("clients", benchmark.seed, trial)
    try:
        seen = leak(benchmark, hidden.to(device), model, shown, shape_and_classes(benchmark)[1], clients)
    except MessageError as error:
        if crafting is None:
            raise
        raise CraftError(f"what it sent out cannot be trained: {error}") from None
    seen.prior = None if attack is None else trained.prior_of(attack, benchmark, device, trial)
    return Observation(hidden, model, seen)


def public_on(benchmark: Benchmark, device: torch.device) -> Public | None:
    """The benchmark's public images there; None where it grants none."""
    pool = public(benchmark)
    return None if pool is None else Public(pool.images.to(device), pool.labels.to(device))


def skip_reason(attack: Attacker, benchmark: Benchmark) -> str | None:
    """Why this attack does not run here: another kind of observation, a prior it may not have, or its own reason."""
    kinds, offered = attack.offers()[0], KINDS[benchmark.threat.sees]
    if not {kind.__name__ for kind in offered.mro()} & set(kinds):
        return f"works on {' or '.join(kinds)}, the benchmark shows {offered.__name__}"
    if "prior" not in benchmark.threat.knows and attack.prior(benchmark) is not None:
        return "needs a prior, which the benchmark does not grant"
    return attack.skips(benchmark)
