"""The sections of a benchmark file, typed: what may stand in them and what stands there if nothing is said."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from leakboard.errors import Fault


class ConfigError(Fault, ValueError):
    """A content file does not say what it should; the message names the file."""


class Strict(BaseModel):
    """A section of a content file: immutable, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class DataSource(Strict):
    """Where the victims' images lie: in `split`, from `start` on, in official order; the public ones alike.

    equal_labels: how many images of a batch share their class, those of all others being distinct; None: as they come.
    """

    name: str
    size: int | None = None
    split: str = "test"
    start: int = 0
    equal_labels: int | None = None
    public_split: str = "train"
    public_start: int = 0
    public_count: int = 256


class Network(Strict):
    """The victim's network. weights: fresh (a new draw per trial), trained (recipe in `training`), pretrained (a file).

    init: default (PyTorch's own) or uniform, U(-0.5, 0.5) on every weight and bias. mode: of victim and attack alike.
    bias, batch_norm: false takes them out. dropout: the share that the network's dropout layers drop, in train mode.
    features: a file of public weights, for the layers that it has; what is `trained` then is the others alone.
    """

    name: str
    init: Literal["default", "uniform"] = "default"
    weights: Literal["fresh", "trained", "pretrained"] = "fresh"
    width: int | None = None
    mode: Literal["eval", "train"] = "eval"
    bias: bool = True
    batch_norm: bool = True
    dropout: float = 0.0
    features: str | None = None


class Training(Strict):
    """A recipe for training the victim: SGD with momentum, cosine decay, on `split` of data set `data`."""

    data: str
    split: str = "train"
    size: int | None = None
    start: int = 0
    count: int | None = None
    epochs: int
    batch: int = 128
    learning_rate: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: bool = True


class Threat(Strict):
    attacker: Literal["server", "client", "outsider"] = "server"
    conduct: Literal["honest", "malicious"] = "honest"
    sees: Literal["gradient", "update", "sequence", "participation", "released"] = "gradient"
    knows: tuple[str, ...] = ()
    access: Literal["white", "black"] = "white"


class Federation(Strict):
    """Federated training around the attack: rounds, clients and what each does locally.

    An epoch is `steps` passes over the data in mini-batches of `batch` (None: all), drawn anew for every pass if
    `shuffle`. decay: what the learning rate is multiplied by after every epoch.
    """

    clients: int = 2
    rounds: int = 1
    learning_rate: float
    steps: int = 1
    epochs: int = 1
    batch: int | None = None
    momentum: float = 0.0
    weight_decay: float = 0.0
    decay: float = 1.0
    shuffle: bool = True
