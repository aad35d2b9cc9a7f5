"""Hitaj, Ateniese and Perez-Cruz (CCS 2017): a client trains a generator against the federation that it is part of."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakboard import config
from leakboard.models.dcgan import Drawing, drawing
from leakboard.threat import LocalTraining, Participation, Public, Reconstruction, Turn


@dataclass(frozen=True)
class Hitaj:
    """Every round: steps of the generator against the received model, then a message to the server.

    role: `active` trains on its own images and on generated ones that it labels with the extra class, so that whoever
    holds the target must tell it from these; `passive` on its own alone; a `free_rider` sends the model back;
    `deceptive` trains on noise with random labels and sends that. `injected` generated images a round, in place of the
    last round's, or on top of all earlier ones if `piled`.
    objective, of the classifier's logits for generated images: `cross_entropy` of the target; `logit` of the target
    itself; `largest`, the largest logit, whichever it is; `confidence`, the target's probability.
    diversity: weight of the mean distance of features (what the last linear layer is given) between the halves of a
    batch. detached: features without their gradient, as the published code has them.
    against: the model as `received`, or the client's own after local training (`local`).
    begin: the first round with steps; `growth`: further steps in every round after it, up to `most` in all.
    trained: false takes no part, and hands in what the generator draws before any step.
    differs: the generator of a conditional form is given its one label as a constant, which the shift of its first
    layer is.
    """

    role: Literal["active", "passive", "free_rider", "deceptive"] = "active"
    objective: Literal["cross_entropy", "logit", "largest", "confidence"] = "cross_entropy"
    against: Literal["received", "local"] = "received"
    diversity: float = 0.0
    detached: bool = False
    begin: int = 4
    steps: int = 20
    growth: int = 0
    most: int = 60
    drawn: int = 64
    injected: int = 200
    piled: bool = False
    trained: bool = True
    noise: int = 100
    width: int = 32
    smooth: bool = True
    rate: float = 1e-3
    momenta: tuple[float, float] = (0.5, 0.999)

    def skips(self, benchmark: config.Benchmark) -> str | None:
        if "local_training" not in benchmark.threat.knows:
            return "trains as the other clients do, which it is not told"
        if self.role == "active" and not benchmark.network.further:
            return "injects images of an extra class, for which the model has no output"
        return None

    def reconstruct(self, seen: Participation, rng: torch.Generator) -> Reconstruction:
        _, channels, height, breadth = seen.shape
        artist = drawing((channels, height, breadth), self.noise, self.width, rng, self.smooth).to(seen.device).train()
        mover = torch.optim.Adam(artist.parameters(), self.rate, betas=(self.momenta[0], self.momenta[1]))
        purse, loss = Purse(seen), 0.0
        fakes: list[Tensor] = []
        for turn in seen if self.trained else ():
            refuse_own(turn.own_data, seen.target)
            if self.against == "received":
                loss = self._taught(artist, mover, seen, turn.model, turn.round, rng, purse)
            if self.role == "active" and turn.round >= self.begin:
                fakes = [*(fakes if self.piled else []), self._drawn(artist, self.injected, rng)]
            local = self._local(turn, fakes, seen, rng, purse)
            if self.against == "local":
                loss = self._taught(artist, mover, seen, local, turn.round, rng, purse)
            if self.role != "free_rider":
                turn.submit(local.state_dict())
            seen.snapshot(turn.round + 1, self._drawn(artist, self.drawn, rng)[: seen.shape[0]], loss)
        images = self._drawn(artist, max(self.drawn, seen.shape[0]), rng)
        return Reconstruction(images[: seen.shape[0]], None, {"loss": loss})

    def _drawn(self, artist: Drawing, count: int, rng: torch.Generator) -> Tensor:
        """Generated images (count, C, H, W), by the statistics of their own batch, as in every step."""
        with torch.no_grad():
            return artist(torch.randn(count, self.noise, generator=rng).to(artist.start.weight.device))

    def _taught(
        self,
        artist: Drawing,
        mover: torch.optim.Optimizer,
        seen: Participation,
        model: nn.Module,
        number: int,
        rng: torch.Generator,
        purse: Purse,
    ) -> float:
        """The generator's steps of one round against a frozen copy of the model; the objective of the last of them."""
        frozen, loss = copy.deepcopy(model).eval().requires_grad_(False), 0.0
        for _ in range(self._steps(number)):
            if not purse.pays(self.drawn):
                break
            images = artist(torch.randn(self.drawn, self.noise, generator=rng).to(seen.device))
            value = self.value(frozen, images, seen.target or 0, seen.loss)
            mover.zero_grad()
            value.backward()
            mover.step()
            loss = float(value.detach())
        return loss

    def _steps(self, number: int) -> int:
        """How many in round `number`; none before `begin`."""
        if number < self.begin:
            return 0
        return min(self.steps + self.growth * (number - self.begin), max(self.steps, self.most))

    def value(self, model: nn.Module, images: Tensor, target: int, loss: nn.Module) -> Tensor:
        """What the generator's step lowers, for its images (B, C, H, W)."""
        logits, features = with_features(model, images)
        labels = torch.full((len(images),), target, device=images.device)
        if self.objective == "cross_entropy":
            sought = loss(logits, labels)
        elif self.objective == "logit":
            sought = -logits[:, target].mean()
        elif self.objective == "largest":
            sought = -logits.amax(1).mean()
        else:
            sought = -logits.softmax(1)[:, target].mean()
        if not self.diversity:
            return sought
        return sought - self.diversity * apart(features.detach() if self.detached else features)

    def _local(
        self, turn: Turn, fakes: list[Tensor], seen: Participation, rng: torch.Generator, purse: Purse
    ) -> nn.Module:
        """What this client has after its part of the round, a copy of the global model."""
        local, own = copy.deepcopy(turn.model), turn.own_data
        if self.role == "free_rider":
            return local
        images, labels = own.images, own.labels
        if self.role == "deceptive":
            images = torch.rand(own.images.shape, generator=rng).to(seen.device)
            labels = torch.randint(seen.classes, own.labels.shape, generator=rng).to(seen.device)
        if fakes:
            images = torch.cat([images, *fakes])
            labels = torch.cat([labels, labels.new_full((len(images) - len(labels),), seen.classes)])
        assert seen.local is not None
        descend(local, seen.loss, images, labels, seen.local, rng, purse)
        return local


class Purse:
    """What is left of the benchmark's budget: a pass over n images costs what the meter charges for it."""

    def __init__(self, seen: Participation) -> None:
        self.left, self.batch = seen.budget, seen.shape[0]

    def pays(self, images: int) -> bool:
        """Whether one more pass over so many images can be paid for; then it is."""
        if self.left is None:
            return True
        cost = -(-images // self.batch)
        if cost > self.left:
            return False
        self.left -= cost
        return True


def descend(
    model: nn.Module,
    loss: nn.Module,
    images: Tensor,
    labels: Tensor,
    local: LocalTraining,
    rng: torch.Generator,
    purse: Purse,
) -> None:
    """The local training of a client, in place, on images (N, C, H, W) and labels (N,); it ends with the budget."""
    descent: torch.optim.Optimizer
    if local.optimiser == "adam":
        descent = torch.optim.Adam(model.parameters(), local.learning_rate, weight_decay=local.weight_decay)
    else:
        descent = torch.optim.SGD(
            model.parameters(), local.learning_rate, momentum=local.momentum, weight_decay=local.weight_decay
        )
    for epoch in range(local.epochs):
        descent.param_groups[0]["lr"] = local.learning_rate * local.decay**epoch
        for chosen in batches(len(images), local.batch or len(images), rng):
            if not purse.pays(len(chosen)):
                return
            places = chosen.to(images.device)
            descent.zero_grad()
            loss(model(images[places]), labels[places]).backward()
            descent.step()


def batches(count: int, size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Positions of `count` images in a new order, `size` at a time."""
    yield from torch.randperm(count, generator=rng).split(size)


def refuse_own(own: Public, target: int | None) -> None:
    """ValueError where the client holds what it is after: then nothing need be taken from anybody."""
    if target is None or bool((own.labels == target).any()):
        raise ValueError(f"the client's own images are of the target class {target}, expected none of it")


def with_features(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, K), and what the last linear layer is given (B, D), both with their graph."""
    kept: list[Tensor] = []
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    hook = last.register_forward_pre_hook(lambda _, given: kept.append(given[0].flatten(1)))
    try:
        return model(images), kept[0]
    finally:
        hook.remove()


def apart(features: Tensor) -> Tensor:
    """Mean distance |h_i - h_(i + B/2)| between the halves of a batch (B, D), over pairs and features."""
    half = len(features) // 2
    return F.l1_loss(features[:half], features[half : 2 * half])
