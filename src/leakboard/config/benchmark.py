"""One question at one scale: `benchmarks/<name>.yaml` as a typed object."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from leakboard import metrics as known
from leakboard.config.federated import Federation
from leakboard.config.hashes import digest
from leakboard.config.kinds import (
    Classes,
    Count,
    Different,
    Evaluations,
    Flag,
    Name,
    Positive,
    Seed,
    Strength,
    Words,
    with_range_of_classes,
)
from leakboard.config.recipes import Classifier, Degradation
from leakboard.config.sections import Images, Network, Normalise, Strict, Threat, differing
from leakboard.config.trainings import Evaluator, Training
from leakboard.errors import brief
from leakboard.threat import KNOWLEDGE

Scale = Literal["quick", "paper"]
SCALES: tuple[Scale, ...] = ("quick", "paper")
PUBLIC = Images(split="train", count=256)
LONGEST = 31 * 24 * 3600.0  # seconds that anybody waits for one trial
# No part of what is asked: what it is called, how often it is asked, how the answer is shown, when one gives up, and
# what a defence costs, which moves no attack's number.
UNASKED = frozenset({"name", "scale", "trials", "question", "metrics", "timeout_seconds", "price"})
FILE = "file"  # the setting of a defence of one's own


class Target(Strict):
    """A class that is sought among what clients hold, in place of single images: of `classes` one a trial, in turn.

    held: whether any client holds it. If none does, the board is a control: nothing of the class can come out.
    """

    classes: Classes
    held: Flag = True

    @model_validator(mode="before")
    @classmethod
    def _range_of_classes(cls, value: Any) -> Any:
        return with_range_of_classes(value)


class Benchmark(Strict):
    """The sections `about`, `common` and `quick` or `paper` of a benchmark file, merged.

    equal_labels: how many images of a batch share their class, those of all others being distinct; None: as they come.
    defence: {name: its settings}, see `victim/defences/`; one of one's own has its `file` among them. price: how the
    same network is trained under the defence, to tell what that costs. auxiliary: how the copies of the true images are
    degraded that the attacker of a released model has.
    target: of a live client, the classes that it is after; honest clients then hold all of `data` between them, and a
    trial is a federation.
    """

    name: Name
    scale: Scale
    version: Count
    question: Words
    seed: Seed
    data: Images
    public: Images = PUBLIC
    network: Network
    training: Training | None = None
    evaluator: Evaluator | None = None
    federation: Federation | None = None
    target: Target | None = None
    threat: Threat = Threat()
    auxiliary: Degradation | None = None
    defence: dict[Name, dict[Name, Strength]] = Field(default_factory=dict)
    price: Training | None = None
    batch: Count = 1
    equal_labels: Count | None = None
    trials: Count
    normalise: Literal["none", "imagenet"] | Normalise = "none"
    metrics: Annotated[tuple[str, ...], Different] = ("psnr",)
    budget: Evaluations
    timeout_seconds: Annotated[Positive, Field(le=LONGEST)] = 3600.0

    @model_validator(mode="before")
    @classmethod
    def _one_data_set(cls, value: Any) -> Any:
        """Victims come from `test` where nothing is said; public images and training sets are of their data set."""
        if not isinstance(value, dict) or not isinstance(value.get("data"), dict):
            return value
        defaults = {"split": "test", **value["data"]}
        public = {} if value.get("public") is None else value["public"]
        if not isinstance(public, dict):
            raise ValueError(f"public: found {brief(public)}, expected a mapping")
        public = {"count": PUBLIC.count, **public}
        return {**value, "data": defaults, "public": public}

    @model_validator(mode="after")
    def _keys_go_together(self) -> Benchmark:
        if self.data.unnamed:
            raise ValueError("`data` has one of `name`, `file` and `folder`")
        if (self.network.weights == "trained") != (self.training is not None):
            raise ValueError("`training` and `network.weights: trained` go together")
        if self.network.features and self.federation:
            raise ValueError("`network.features` are held fixed; clients that train them are not `federation`'s")
        if self.target is not None and self.threat.sees != "participation":
            raise ValueError("`target` goes with `sees: participation`")
        shared = self.public_images is not None and self.public_images.shares_with(self.data)
        if self.equal_labels is not None and (self.data.start or shared):
            raise ValueError("`equal_labels` takes its images from all of a split, in which nothing else may lie")
        return self

    @model_validator(mode="after")
    def _only_a_file_has_a_path(self) -> Benchmark:
        for name, settings in self.defence.items():
            for key, value in settings.items():
                if isinstance(value, float) == (key == FILE):
                    wanted = "the path of a file" if key == FILE else "a number"
                    found = value if isinstance(value, float) else str(value)
                    raise ValueError(f"defence.{name}.{key}: found {brief(found)}, expected {wanted}")
        if self.price is not None and (self.price.anew or self.price.federated):
            raise ValueError("price: `anew` or `federated`: one training tells what a defence costs")
        return self

    @model_validator(mode="after")
    def _words_are_known(self) -> Benchmark:
        knows, unknown = set(self.threat.knows), sorted(set(self.threat.knows) - set(KNOWLEDGE))
        if unknown:
            raise ValueError(f"threat.knows: unknown {unknown}; there are: {', '.join(KNOWLEDGE)}")
        if "public_data" not in knows and self.public != PUBLIC:
            raise ValueError("`public` images, of which threat.knows has no `public_data`")
        if "batch_size" not in knows:
            raise ValueError("threat.knows lacks `batch_size`, which the shape of what is seen gives away")
        federated = {"local_training", "clients"} & knows
        if federated and self.federation is None:
            raise ValueError(f"threat.knows: {sorted(federated)} without a `federation`")
        if "batch_norm" in knows and self.network.mode == "train":
            raise ValueError("threat.knows: `batch_norm` are running statistics, which `mode: train` does not use")
        given = self.auxiliary is not None
        if ("auxiliary" in knows) != given or (given and self.threat.sees != "released"):
            raise ValueError("`auxiliary` goes with threat.knows `auxiliary` and `sees: released`")
        absent = [name for name in self.metrics if name not in known.METRICS]
        if absent or not self.metrics:
            raise ValueError(f"metrics: unknown {absent}; there are: {', '.join(known.METRICS)}")
        if known.METRICS[self.metrics[0]].truth == "victim":
            raise ValueError(f"metrics: {self.metrics[0]} comes first, which ranks attacks, and says nothing of them")
        return self

    @property
    def by_class(self) -> bool:
        """Whether a class is sought, and the secrets are images of it."""
        return self.threat.sees == "released" or self.target is not None

    @property
    def hash(self) -> str:
        """12 hex digits over everything asked for that differs from the defaults and changes a trial's number."""
        return digest(self.asked())

    def asked(self) -> dict[str, Any]:
        """What differs from the defaults; of the data set that all sections share, `data` alone speaks."""
        content = differing(self, {}, UNASKED)
        content["data"] = differing(self.data, {"split": "test"})
        content["public"] = differing(self.public.of(self.data), {**self.data.source, "count": PUBLIC.count})
        for name in ("training", "evaluator"):
            section = getattr(self, name)
            training = getattr(section, "training", section)
            if training is not None:
                images = differing(training.images.of(self.data), self.data.source)
                inner = {**training.said(), "images": images}
                content[name] = inner if name == "training" else {**section.said(), "training": inner}
        return {key: value for key, value in content.items() if value != {}}

    @property
    def priced(self) -> Classifier | None:
        """The recipe of the same network, trained as `price` says under the defence; None where there is no price."""
        if self.price is None:
            return None
        return Classifier(
            network=self.network.model_copy(update={"weights": "fresh", "mode": "eval"}),
            training=self.price,
            data=self.data,
            normalise=self.normalise,
            defence=self.defence,
            seed=self.seed,
        )

    @property
    def public_images(self) -> Images | None:
        """Images that anybody has, of the benchmark's data set where `public` names none; None if nobody has any."""
        return self.public.of(self.data) if "public_data" in self.threat.knows else None
