"""The sections of a benchmark file that say what is trained, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from leakboard.config.federated import Rounds
from leakboard.config.kinds import Count, CountOrNone, Flag, NotNegative, Part, Positive
from leakboard.config.sections import Images, Network, Strict


class Pretraining(Strict):
    """Of a stack of autoencoders, layer by layer, each `epochs` long: `corruption` is the share of inputs put to 0."""

    epochs: Count
    batch: Count = 32
    learning_rate: Positive
    corruption: Part = 0.25


class Training(Strict):
    """A recipe for training a classifier on `images`: SGD with momentum, or Adam, and cosine decay.

    augment: each batch shifted and mirrored; `posed`: each image turned, scaled, shifted and lit by a draw of its own.
    noise: standard deviation of Gaussian noise in pixels, each image's own draw between 0 and this. pretraining:
    before, of networks that are stacks of autoencoders. anew: whether every trial has a victim of its own, drawn and
    trained with the trial's seed, so that victims are what trials count. federated: among whom the images are shared
    out, each of whom trains so in every round, with an optimiser of its own and no decay (`recipes/federation.py`).
    """

    images: Images = Images()
    epochs: CountOrNone
    batch: Count = 128
    learning_rate: Positive
    momentum: Part = 0.9
    weight_decay: NotNegative = 5e-4
    augment: Flag | Literal["posed"] = True
    noise: NotNegative = 0.0
    optimiser: Literal["sgd", "adam"] = "sgd"
    pretraining: Pretraining | None = None
    anew: Flag = False
    federated: Rounds | None = None

    @model_validator(mode="after")
    def _clients_train_plainly(self) -> Training:
        if self.federated is not None and (self.augment or self.noise or self.pretraining or not self.epochs):
            raise ValueError("`federated` goes with `augment: false` and epochs, without `noise` and `pretraining`")
        return self


class Reject(Strict):
    """Images that show no class: so many of `noise`, white to blotched (`recipes/junk.py`), and public `images`."""

    noise: CountOrNone = 0
    images: Images | None = None

    @model_validator(mode="after")
    def _something(self) -> Reject:
        if not self.noise and self.images is None:
            raise ValueError("nothing is rejected: `noise` is 0 and there are no `images`")
        return self


class Evaluator(Strict):
    """An independent classifier that judges what shall show a class; no attack ever sees it.

    reject: what it learns to take for no class at all, so that junk is not named after the class it is least unlike.
    """

    network: Network
    training: Training
    reject: Reject | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Evaluator:
        if self.training.anew:
            raise ValueError("`anew`: one evaluator judges all trials")
        return self
