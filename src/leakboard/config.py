"""The content folders as typed objects: `benchmarks/*.yaml`, `baselines/*/params.yaml` and `published.yaml`.

Everything that changes a number is declared here and nothing else is accepted: an unknown key is an error that names
the file and the key.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from leakboard.sections import ConfigError, DataSource, Federation, Network, Strict, Threat, Training
from leakboard.yaml12 import Yaml12

T = TypeVar("T", bound="Strict")
Scale = Literal["quick", "paper"]
SCALES: tuple[Scale, ...] = ("quick", "paper")
LATER: dict[str, dict[str, object]] = {  # keys newer than results without them: left alone, they change no hash
    "network": {"bias": True, "batch_norm": True, "dropout": 0.0, "features": None},
    "data": {"public_start": 0, "equal_labels": None},
}


class Benchmark(Strict):
    """One question at one scale: the sections `common` and `quick` or `paper` of a benchmark file, merged."""

    name: str
    scale: Scale
    version: int
    question: str
    seed: int
    data: DataSource
    network: Network
    training: Training | None = None
    federation: Federation | None = None
    threat: Threat = Threat()
    batch: int = 1
    trials: int
    normalise: Literal["none", "imagenet"] = "none"
    metrics: tuple[str, ...] = ("psnr",)
    budget: int
    timeout_seconds: float = 3600.0

    @model_validator(mode="after")
    def _trained_has_recipe(self) -> Benchmark:
        if (self.network.weights == "trained") != (self.training is not None):
            raise ValueError("`training` and `network.weights: trained` go together")
        return self

    @model_validator(mode="after")
    def _keys_go_together(self) -> Benchmark:
        if self.network.features and self.federation:
            raise ValueError("`network.features` are held fixed; clients that train them are not `federation`'s")
        data = self.data
        if data.equal_labels is not None and (data.start or (data.split == data.public_split and data.public_count)):
            raise ValueError("`equal_labels` takes its images from all of a split, in which nothing else may lie")
        return self

    @property
    def hash(self) -> str:
        """12 hex digits over everything that changes a trial's number. How many trials there are is not part of it."""
        return digest(self.content({"trials", "question", "metrics", "timeout_seconds"}))

    def content(self, without: set[str]) -> dict[str, Any]:
        """Everything asked for but `without`; keys that are newer than results show only where they are used."""
        content = self.model_dump(exclude=without)
        for section, keys in LATER.items():
            content[section] = {key: value for key, value in content[section].items() if keys.get(key, ...) != value}
        return content


class Variant(Strict):
    """One row of a board: the attack's numbers, and what differs on single benchmarks.

    runs: the benchmarks this variant is for; absent, all that the paper runs.
    """

    settings: dict[str, Any] = Field(default_factory=dict)
    on: dict[str, dict[str, Any]] = Field(default_factory=dict)
    runs: tuple[str, ...] | None = None

    def settings_for(self, benchmark: str) -> dict[str, Any]:
        return {**self.settings, **self.on.get(benchmark, {})}


class Params(Strict):
    """`baselines/<paper>/params.yaml`: which variants of the attack there are and on which benchmarks they run."""

    version: int
    title: str
    variants: dict[str, Variant]
    runs: tuple[str, ...]

    def variants_on(self, benchmark: str) -> dict[str, Variant]:
        return {name: variant for name, variant in self.variants.items() if benchmark in (variant.runs or self.runs)}


class PublishedNumber(Strict):
    """A number that the paper printed. `gates`: a miss is a red test. `gap`: why a miss is true and expected."""

    run: str
    variant: str
    metric: str
    value: float
    tolerance: float
    where: str
    provenance: Literal["verified", "figure", "secondary", "memory"]
    gates: bool = False
    gap: str = ""
    scale: tuple[Scale, ...] = ("paper",)

    @field_validator("scale", mode="before")
    @classmethod
    def _one_scale_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _only_verified_gates(self) -> PublishedNumber:
        if self.gates and self.provenance in ("memory", "figure"):
            raise ValueError(f"a number from {self.provenance} is shown and never gates")
        return self


class Row(Strict):
    """One side of a claim: a row of a board."""

    run: str
    variant: str
    paper: str | None = None


class Claim(Strict):
    """A relation between two rows, judged on the 95 % interval of the paired difference left - right.

    `>`: the difference exceeds `margin`; `>=`: it is not below -margin. With `right` absent, left is compared to
    `value`: `<` its interval lies below, `>` above.
    """

    says: str
    metric: str
    left: Row
    relation: Literal[">", ">=", "<", "<="]
    right: Row | None = None
    value: float | None = None
    margin: float = 0.0
    where: str
    provenance: Literal["verified", "figure", "secondary", "memory"]
    gates: bool = True
    gap: str = ""
    scale: tuple[Scale, ...] = ("paper",)

    @model_validator(mode="after")
    def _one_right_side(self) -> Claim:
        if (self.right is None) == (self.value is None):
            raise ValueError("a claim compares with either `right` or `value`")
        return self


class Published(Strict):
    """`baselines/<paper>/published.yaml`."""

    paper: str
    citation: str
    numbers: tuple[PublishedNumber, ...] = ()
    claims: tuple[Claim, ...] = ()


def digest(value: Any) -> str:
    """12 hex digits of the sha256 over the canonical JSON form of `value`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def root() -> Path:
    """The suite's folder: the nearest one upwards that holds `benchmarks/` and `baselines/`."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "benchmarks").is_dir() and (folder / "baselines").is_dir():
            return folder
    raise ConfigError(f"{Path.cwd()} lies in no Leakboard checkout: no folder upwards holds benchmarks/ and baselines/")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(), Loader=Yaml12)
    except FileNotFoundError:
        known = sorted(p.stem for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ConfigError(f"{path} does not exist" + (f"; there are: {', '.join(known)}" if known else "")) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {type(content).__name__}, expected a mapping")
    return content


def _build(kind: type[T], path: Path, content: dict[str, Any]) -> T:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ConfigError("\n".join([f"{path}:", *lines])) from None


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Sections above win over those below, key by key, in nested sections too."""
    both = {key for key in below.keys() & above.keys() if isinstance(below[key], dict) and isinstance(above[key], dict)}
    return {**below, **above, **{key: _merge(below[key], above[key]) for key in both}}


@functools.cache
def _benchmark(path: Path, scale: Scale) -> Benchmark:
    content = _read(path)
    unknown = set(content) - {"common", *SCALES}
    if unknown:
        raise ConfigError(f"{path}: unknown section {sorted(unknown)}; expected common, quick, paper")
    merged = _merge(content.get("common", {}), content.get(scale) or {})
    return _build(Benchmark, path, {"name": path.stem, "scale": scale, **merged})


def benchmark(name: str, scale: Scale, folder: Path | None = None) -> Benchmark:
    """The benchmark `benchmarks/<name>.yaml` at one scale. ConfigError names the file and what is wrong in it."""
    return _benchmark((folder or root() / "benchmarks") / f"{name}.yaml", scale)


def benchmark_names() -> list[str]:
    return sorted(path.stem for path in (root() / "benchmarks").glob("*.yaml") if path.stem != "dvc")


def paper_names() -> list[str]:
    return sorted(path.parent.name for path in (root() / "baselines").glob("*/params.yaml"))


def params(paper: str) -> Params:
    path = root() / "baselines" / paper / "params.yaml"
    if not path.parent.is_dir():
        raise ConfigError(f"no paper {paper!r} in {path.parent.parent}; there are: {', '.join(paper_names())}")
    return _build(Params, path, _read(path))


def published(paper: str) -> Published | None:
    """What the paper printed, or None for a baseline without a paper (the controls)."""
    path = root() / "baselines" / paper / "published.yaml"
    return _build(Published, path, _read(path)) if path.exists() else None
