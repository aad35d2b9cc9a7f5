"""The shared vocabulary: who attacks, what they see, what they hand in. Imports nothing of ours.

An attack is given one `Seen` and returns one `Reconstruction`. `Seen` is everything that any attacker ever gets: there
is no path from it to the secret images, and nothing in it is shared with the victim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:  # boards read the words of this file, and need no torch for it
    import torch
    from torch import Tensor, nn

Attacker = Literal["server", "client", "outsider"]
Conduct = Literal["honest", "malicious"]

# What an attacker may know beyond what is seen, and how a board says it. Each word changes what `Seen` holds.
KNOWLEDGE = {
    "auxiliary": "a degraded copy of the images",
    "batch_norm": "the batch-norm statistics",
    "batch_size": "the batch size",
    "clients": "the number of clients",
    "labels": "the labels",
    "local_training": "how the client trains",
    "prior": "a prior of images",
    "public_data": "public images",
}


class BudgetSpent(RuntimeError):
    """The attack used more gradient evaluations than its benchmark allows."""


@dataclass(frozen=True)
class ThreatModel:
    """Who attacks and what they have. `knows`: words of `KNOWLEDGE`; one board per value."""

    attacker: Attacker
    conduct: Conduct
    sees: type[Seen]
    knows: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LocalTraining:
    """What is known of a client's local training (FedAvg): `steps` updates of `batch` images, over `epochs`, by SGD
    unless `optimiser` says adam.

    decay: what the learning rate is multiplied by after every epoch.
    """

    learning_rate: float
    steps: int
    epochs: int = 1
    batch: int | None = None
    momentum: float = 0.0
    weight_decay: float = 0.0
    decay: float = 1.0
    optimiser: str = "sgd"

    @property
    def rates(self) -> list[float]:
        """The learning rate of every step."""
        return [self.learning_rate * self.decay ** (step * self.epochs // self.steps) for step in range(self.steps)]


@dataclass(frozen=True)
class Public:
    """Images that anybody has: (N, C, H, W) in [0, 1] and their labels (N,). Disjoint from every victim."""

    images: Tensor
    labels: Tensor


@dataclass(kw_only=True)
class Seen:
    """All that an attacker gets of one trial.

    model: a private copy of the victim's network, in the victim's mode, normalisation included (input in [0, 1]).
    loss: the victim's own loss object, `loss(logits, labels) -> scalar`; labels are classes (B,) or probabilities.
    shape: (B, C, H, W) of the secret batch. labels: (B,) when the threat model gives them, sorted.
    budget: gradient evaluations that the benchmark allows; every pass through `model` counts as one.
    execution: how gradient matching computes: loop, stacked, compiled or cuda_graph (`attack/matching.py`).
    prior: what the attack asked to have trained on public images, such as a generator; None where it asked for nothing.
    lies_on: the device of the observation, where no model tells it.
    key, phrase: how benchmarks name this kind of observation, and how a board says it.
    """

    key: ClassVar[str] = ""
    phrase: ClassVar[str] = ""

    model: nn.Module
    loss: nn.Module
    shape: tuple[int, int, int, int]
    classes: int
    labels: Tensor | None = None
    public: Public | None = None
    prior: nn.Module | None = None
    budget: int | None = None
    execution: str = "loop"
    lies_on: torch.device | None = None
    observer: Callable[[int, Tensor, Tensor | float], None] | None = field(default=None, repr=False)
    meter: Callable[[], None] | None = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        """Where the observation lies; an attack computes there."""
        import torch

        for tensor in (*self.model.parameters(), *self.model.buffers()):
            return tensor.device
        return self.lies_on or torch.device("cpu")

    def spend(self) -> None:
        """Count one gradient evaluation that is not made through `model`; BudgetSpent when it was one too many."""
        if self.meter is not None:
            self.meter()

    def snapshot(self, step: int, images: Tensor, loss: Tensor | float) -> None:
        """Offer the images (M, C, H, W) at `step` for the quality curve; the attack's clock stands still meanwhile.

        Kept at steps 1, 2, 4, ... only, and scored by the runner after the attack has ended.
        """
        if self.observer is not None and due(step):
            self.observer(step, images, loss)


def due(step: int) -> bool:
    """Whether a snapshot at `step` is kept: 1, 2, 4, ..."""
    return step & (step - 1) == 0


def snapshots(seen: Sequence[Seen], step: int, images: Tensor, losses: Tensor, which: Tensor | None = None) -> None:
    """Snapshots of many trials: images (Q, M, C, H, W) and losses (Q,) of the trials `which` (Q,), or of all."""
    if due(step):
        for row, index in enumerate(range(len(seen)) if which is None else which.tolist()):
            seen[index].snapshot(step, images[row], losses[row])


@dataclass(kw_only=True)
class Gradient(Seen):
    """FedSGD: one gradient tensor per parameter of `model`, in the order of `model.parameters()`."""

    key: ClassVar[str] = "gradient"
    phrase: ClassVar[str] = "the gradient of one batch"

    gradient: tuple[Tensor, ...]


@dataclass(kw_only=True)
class ModelUpdate(Seen):
    """FedAvg: what several local steps changed, after minus before, one tensor per parameter of `model` (before)."""

    key: ClassVar[str] = "update"
    phrase: ClassVar[str] = "one client's model update after local training"

    update: tuple[Tensor, ...]
    local: LocalTraining | None = None

    @property
    def gradient(self) -> tuple[Tensor, ...]:
        """The mean gradient along the local steps: -update / sum of learning rates, or -update if these are unknown.

        Of one plain step it is the client's gradient; of several, what an attack may take for one.
        """
        scale = 1.0 if self.local is None else sum(self.local.rates)
        return tuple(-change / scale for change in self.update)


@dataclass(kw_only=True)
class ModelSequence(Seen):
    """A client's view: consecutive global models as state dicts, and its own update in each round between them.

    own_data: what it trained on itself. A mean that is weighted by images holds its update as often as it has images.
    """

    key: ClassVar[str] = "sequence"
    phrase: ClassVar[str] = "consecutive global models"

    models: Sequence[dict[str, Tensor]]
    own_update: Sequence[tuple[Tensor, ...]]
    own_data: Public
    clients: int | None = None
    local: LocalTraining | None = None


@dataclass
class Turn:
    """One round as a live client meets it: the global model, the client's own data, and one answer to give.

    accept: state dict -> the copy of it that is sent; raises by name what the round would refuse.
    """

    round: int
    model: nn.Module
    own_data: Public
    accept: Callable[[dict[str, Tensor]], dict[str, Tensor]] = field(repr=False)
    answer: dict[str, Tensor] | None = None

    def submit(self, state: dict[str, Tensor]) -> None:
        """Hand in this client's model after local training: a state dict with the keys of `model.state_dict()`.

        ValueError names the entry that does not fit the global model, or is not finite.
        """
        self.answer = self.accept(state)


@dataclass(kw_only=True)
class Participation(Seen):
    """A live client: iterate to take part, one `Turn` per round. A turn left unanswered submits the model unchanged.

    target: the class that is sought. local: how the clients train, where the threat model tells it.
    """

    key: ClassVar[str] = "participation"
    phrase: ClassVar[str] = "the training rounds that it takes part in"

    turns: Callable[[], Iterator[Turn]] = field(repr=False)
    target: int | None = None
    local: LocalTraining | None = None

    def __iter__(self) -> Iterator[Turn]:
        return self.turns()


@dataclass(kw_only=True)
class ReleasedModel(Seen):
    """A trained model that anybody may query. Black-box access carries no `model` weights: `model` is an empty Module.

    query: (N, C, H, W) -> confidences (N, classes). target: the class to reconstruct. auxiliary: (B, C, H, W), what is
    known of each image beside it, such as a blurred copy.
    """

    key: ClassVar[str] = "released"
    phrase: ClassVar[str] = "a released model"

    query: Callable[[Tensor], Tensor] = field(repr=False)
    access: Literal["white", "black"] = "black"
    target: int = 0
    auxiliary: Tensor | None = None


@dataclass
class Reconstruction:
    """What an attack hands in: images (M, C, H, W) in [0, 1] with 0 <= M <= B, and labels (M,) if it found them.

    Checked and clamped once, by the runner. The attack picks which M to hand in. With M = 0 the labels may stand alone,
    as a multiset of up to B. `info` may carry numbers for the record: `restarts`, `gradient_evaluations`.
    """

    images: Tensor
    labels: Tensor | None = None
    info: dict[str, float] = field(default_factory=dict)

    def checked(self, shape: tuple[int, int, int, int]) -> Reconstruction:
        """Clamped to [0, 1] on the CPU; ValueError names what does not fit `shape` = (B, C, H, W)."""
        import torch

        batch, *image = shape
        if self.images.ndim != 4 or list(self.images.shape[1:]) != image or len(self.images) > batch:
            raise ValueError(f"images have shape {tuple(self.images.shape)}, expected (M <= {batch}, {image})")
        if not torch.isfinite(self.images).all():
            raise ValueError("images are not finite")
        if self.labels is not None and (self.labels.ndim != 1 or self.labels.is_floating_point()):
            found = tuple(self.labels.shape)
            raise ValueError(f"labels have shape {found} of {self.labels.dtype}, expected classes (M,)")
        labels = None if self.labels is None else self.labels.detach().cpu().long()
        if labels is not None and len(labels) != len(self.images) and (len(self.images) or len(labels) > batch):
            raise ValueError(f"{len(labels)} labels for {len(self.images)} images")
        return Reconstruction(self.images.detach().float().cpu().clamp(0, 1), labels, dict(self.info))


KINDS: dict[str, type[Seen]] = {
    kind.key: kind for kind in (Gradient, ModelUpdate, ModelSequence, Participation, ReleasedModel)
}
