"""`datasets/sources.toml` as typed objects: where data sets and weights come from, and how to know their files."""

from __future__ import annotations

import functools
import re
import tomllib
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field, RootModel, model_validator

from leakboard.config.files import built
from leakboard.config.kinds import Count, Flag, Line, Name
from leakboard.config.sections import ConfigError, Strict
from leakboard.config.texts import state_of, text_of
from leakboard.errors import brief

WEIGHTS = "weights"
MOST_BYTES = 1_000_000


def _inside(text: str) -> str:
    if not text or not text.isprintable() or PurePosixPath(text).is_absolute() or ".." in PurePosixPath(text).parts:
        raise ValueError(f"found {brief(text)}, expected a path below the data root or the package, without ..")
    return text


def _digest(text: str, least: int, most: int) -> str:
    if not re.fullmatch(f"[0-9a-f]{{{least},{most}}}", text):
        raise ValueError(f"found {brief(text)}, expected {least} to {most} hexadecimal digits")
    return text


Inside = Annotated[str, AfterValidator(_inside)]
Sha256 = Annotated[str, AfterValidator(functools.partial(_digest, least=8, most=64))]  # torchvision gives the first 8
Md5 = Annotated[str, AfterValidator(functools.partial(_digest, least=32, most=32))]


class File(Strict):
    """One file and its checksum; split: where it belongs to one."""

    name: Inside
    sha256: Sha256 | None = None
    md5: Md5 | None = None
    split: Name | None = None

    @model_validator(mode="after")
    def _one_checksum(self) -> File:
        if (self.sha256 is None) == (self.md5 is None):
            raise ValueError("a file has either `sha256` or `md5`")
        return self


class Variant(Strict):
    """A way in which a data set may lie: in a package that is installed, or in one of some folders."""

    package: Name | None = None
    folders: tuple[Inside, ...] | None = None
    partial: Flag = False
    files: tuple[File, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_place(self) -> Variant:
        if (self.package is None) == (self.folders is None):
            raise ValueError("files lie either in a `package` or in `folders`")
        return self


class Fetch(Strict):
    """How a data set is to be had: by addresses, as an archive, through torchvision, or by hand."""

    urls: tuple[Line, ...] | None = None
    archive: Line | None = None
    md5: Md5 | None = None
    folder: Inside | None = None
    unpack: Flag | None = None
    torchvision: Line | None = None
    manual: Line | None = None

    @model_validator(mode="after")
    def _an_archive_is_whole(self) -> Fetch:
        if self.archive is not None and (self.md5 is None or self.unpack is None):
            raise ValueError("an `archive` has its `md5` and says whether to `unpack` it")
        return self


class Source(Strict):
    """A data set. length: {split: its official number of images}."""

    title: Line
    origin: Line
    licence: Line
    citation: Line
    classes: Count
    shape: tuple[Count, Count, Count]
    length: dict[Name, Count] = Field(min_length=1)
    variants: dict[Name, Variant] = Field(min_length=1)
    fetch: Fetch | None = None


class WeightSource(Strict):
    """Weights, in one of some folders."""

    title: Line
    origin: Line
    licence: Line
    folders: tuple[Inside, ...]
    files: tuple[File, ...] = Field(min_length=1)


class Sources(RootModel[dict[Name, Source]]):
    """The data sets by name."""


class WeightSources(Strict):
    """The weights by name."""

    weights: dict[Name, WeightSource]


def read(path: Path) -> dict[str, Any]:
    """The file as plain values, once everything in it is as it should be; ConfigError names what is not."""
    return _read(path, *state_of(path))


@functools.lru_cache(maxsize=8)
def _read(path: Path, *state: int) -> dict[str, Any]:
    """Parsed once for each state of the file."""
    try:
        content = tomllib.loads(text_of(path, ConfigError, MOST_BYTES))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        deep = "values too deep" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{path} is not valid TOML: {deep}") from None
    if not content:
        raise ConfigError(f"{path} holds nothing, expected data sets")
    built(Sources, path, {name: entry for name, entry in content.items() if name != WEIGHTS})
    built(WeightSources, path, {WEIGHTS: content.get(WEIGHTS, {})})
    return content
