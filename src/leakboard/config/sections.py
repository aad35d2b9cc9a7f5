"""The sections of a benchmark file, typed: what may stand in them and what stands there if nothing is said."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from leakboard.config.kinds import (
    Classes,
    Count,
    CountOrNone,
    Different,
    Flag,
    Line,
    Name,
    Number,
    OwnPath,
    Part,
    Side,
    Spot,
    with_range_of_classes,
)  # fmt: skip
from leakboard.errors import Fault, brief
from leakboard.threat import KINDS


class ConfigError(Fault, ValueError):
    """A content file does not say what it should; the message names the file."""


# What a benchmark may call a network by: the functions of these names in `models/`.
NETWORKS = (
    "mlp", "fc2", "lenet_sigmoid", "lenet_relu", "cnn", "cnn3", "convnet", "vgg7", "vgg16", "resnet9", "resnet18",
    "resnet20", "resnet20fc", "resnet34", "softmax", "mlp_sigmoid", "dae", "cnn_pooled", "mcnn", "scnn", "tanh",
    "lenet_pooled",
)  # fmt: skip


def _kind(key: str) -> str:
    if key not in KINDS:
        raise ValueError(f"no kind of observation {brief(key)}; there are: {', '.join(KINDS)}")
    return key


Sees = Annotated[str, AfterValidator(_kind)]


class Strict(BaseModel):
    """A section of a content file: immutable, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def said(self) -> dict[str, Any]:
        """What differs from the defaults, in nested sections too: what a hash is taken over."""
        return differing(self, {})


def differing(section: BaseModel, inherited: dict[str, Any], without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The values of a section that are neither its defaults nor, under the same key, in `inherited`."""
    found: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if name in without or value == inherited.get(name, field.get_default(call_default_factory=True)):
            continue
        found[name] = differing(value, {}) if isinstance(value, BaseModel) else value
    return found


class Images(Strict):
    """A slice of a labelled data set: victims, public images, and what anything is trained on.

    One of name (of a data set in `datasets/sources.toml`), file (an .npz of one's own: `images`, `labels`) and folder
    (of pictures, a sub-folder a class); where none is said, the benchmark's own. size: side in pixels, where the data
    set can be had at several; or [height, width], to which the largest centred part of any is resized. Of the images of
    `split` those of `classes` (None: of all; in sets of faces a class is a person), of these `count` (None: all) from
    the place `start` on, in official order.
    """

    name: Name | None = None
    file: OwnPath | None = None
    folder: OwnPath | None = None
    split: Line = "train"
    size: Side | tuple[Side, Side] | None = None
    start: Spot = 0
    count: Count | None = None
    classes: Classes | None = None

    @model_validator(mode="before")
    @classmethod
    def _range_of_classes(cls, value: Any) -> Any:
        return with_range_of_classes(value)

    @model_validator(mode="after")
    def _one_source(self) -> Images:
        named = [key for key in ("name", "file", "folder") if getattr(self, key) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} exclude one another")
        return self

    @property
    def source(self) -> dict[str, Any]:
        """Which data set, at which size: what another section may inherit."""
        return {key: getattr(self, key) for key in ("name", "file", "folder", "size")}

    @property
    def unnamed(self) -> bool:
        return self.name is None and self.file is None and self.folder is None

    def of(self, other: Images) -> Images:
        """This slice, of the data set of `other` where it names none; the size goes with the data set."""
        if not self.unnamed:
            return self
        source = {**other.source, **({} if self.size is None else {"size": self.size})}
        return self.model_copy(update=source)

    def shares_with(self, other: Images) -> bool:
        """Whether both are slices of one split of one data set, so that they may have images in common."""
        return (self.name, self.file, self.folder, self.split) == (other.name, other.file, other.folder, other.split)

    @property
    def title(self) -> str:
        """What the data set is called."""
        return self.name or str(self.file or self.folder)

    def __str__(self) -> str:
        return f"{self.title} {self.split}"


class Network(Strict):
    """The victim's network: `name`, or a `file` that defines `network(shape, classes)`.

    weights: fresh (a new draw per trial), trained (recipe in `training`), pretrained (a file).
    init: default (PyTorch's own), uniform, U(-0.5, 0.5) on every weight and bias, normal, N(0, 0.5^2) on the first
    weight, Xavier on the others, biases 0, or zeros. precision: what the network and its gradients are computed in.
    mode: of victim and attack alike. bias, batch_norm: false takes them out. dropout: the share that the network's
    dropout layers drop, in train mode.
    features: a file of public weights, for the layers that it has; what is `trained` then is the others alone.
    further: outputs beside those of the classes, which no honest client trains towards.
    """

    name: str | None = None
    file: OwnPath | None = None
    init: Literal["default", "uniform", "normal", "zeros"] = "default"
    precision: Literal["float32", "float64"] = "float32"
    weights: Literal["fresh", "trained", "pretrained"] = "fresh"
    width: Side | None = None
    mode: Literal["eval", "train"] = "eval"
    bias: Flag = True
    batch_norm: Flag = True
    dropout: Part = 0.0
    features: Name | None = None
    further: CountOrNone = 0

    @model_validator(mode="after")
    def _one_source(self) -> Network:
        if (self.name is None) == (self.file is None):
            raise ValueError("a network has either `name` or `file`")
        if self.name is not None and self.name not in NETWORKS:
            raise ValueError(f"unknown network {brief(self.name)}; there are: {', '.join(NETWORKS)}")
        return self

    def __str__(self) -> str:
        return self.name or Path(str(self.file)).stem


class Normalise(Strict):
    """Mean and standard deviation of each channel, in pixels of [0, 1]; part of the model."""

    mean: tuple[Number, ...]
    std: tuple[Number, ...]

    @model_validator(mode="after")
    def _fit(self) -> Normalise:
        if not len(self.mean) == len(self.std) > 0 or not all(deviation > 0 for deviation in self.std):
            raise ValueError("`mean` and `std` have one number a channel, and every `std` is above 0")
        return self


class Threat(Strict):
    """Who attacks, what they see and what they know: words of `threat.KNOWLEDGE`, each of which changes something."""

    attacker: Literal["server", "client", "outsider"] = "server"
    conduct: Literal["honest", "malicious"] = "honest"
    sees: Sees = "gradient"
    knows: Annotated[tuple[str, ...], Different] = ("batch_size", "public_data")
    access: Literal["white", "black"] = "white"
