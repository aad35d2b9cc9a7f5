"""The sections of a benchmark file that speak of federations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from leakboard.config.kinds import Count, Flag, Name, NotNegative, Part, Positive, Spot
from leakboard.config.sections import Strict


class Rounds(Strict):
    """Who takes part in so many rounds of a federation, and who holds what.

    share: of the clients, those that take part in a round, drawn anew. rule: how their messages become the next model,
    a name of `federation/rules.py`. partition: who holds which images (`data/partition.py`): iid, evenly at random;
    classes, those of `classes_per_client`; dirichlet, each class by shares from Dirichlet(`beta`), at least `minimum`
    images a client; label, one of the `groups` of classes a client.
    """

    clients: Count = 2
    rounds: Count = 1
    share: Annotated[Positive, Field(le=1)] = 1.0
    rule: Name = "average"
    partition: Literal["iid", "classes", "dirichlet", "label"] = "iid"
    classes_per_client: Count | None = None
    beta: Positive | None = None
    minimum: Count = 1
    groups: tuple[tuple[Spot, ...], ...] | None = None

    @model_validator(mode="after")
    def _partition_has_its_setting(self) -> Rounds:
        for key, partition in (("classes_per_client", "classes"), ("beta", "dirichlet"), ("groups", "label")):
            if (getattr(self, key) is not None) != (self.partition == partition):
                raise ValueError(f"`{key}` and `partition: {partition}` go together")
        if self.minimum != 1 and self.partition != "dirichlet":
            raise ValueError("`minimum` goes with `partition: dirichlet`")
        return self


class Federation(Rounds):
    """Federated training around the attack: rounds, clients and what each does locally, by SGD or Adam, begun afresh
    in every round. Clients that attack hold images of their own.

    An epoch is `steps` passes over the data in mini-batches of `batch` (None: all), drawn anew for every pass if
    `shuffle`. decay: what the learning rate is multiplied by after every epoch.
    """

    learning_rate: Positive
    steps: Count = 1
    epochs: Count = 1
    batch: Count | None = None
    optimiser: Literal["sgd", "adam"] = "sgd"
    momentum: Part = 0.0
    weight_decay: NotNegative = 0.0
    decay: Positive = 1.0
    shuffle: Flag = True

    @model_validator(mode="after")
    def _momentum_is_of_sgd(self) -> Federation:
        if self.momentum and self.optimiser != "sgd":
            raise ValueError("`momentum` is of `optimiser: sgd`")
        return self
