"""The content folders, found and read: a file is parsed once for each of its states, and a message names it."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from leakboard.config.benchmark import SCALES, Benchmark, Scale
from leakboard.config.checkout import root
from leakboard.config.papers import Params, Published, Row
from leakboard.config.sections import ConfigError, Strict
from leakboard.config.yaml12 import Yaml12

T = TypeVar("T", bound=Strict)
ABOUT = ("question", "metrics")


def benchmark(name: str, scale: Scale, folder: Path | None = None) -> Benchmark:
    """The benchmark `benchmarks/<name>.yaml` at one scale. ConfigError names the file and what is wrong in it."""
    path = (folder or root() / "benchmarks") / f"{name}.yaml"
    return _benchmark(path, _state(path), scale)


def benchmark_names() -> list[str]:
    return sorted(path.stem for path in (root() / "benchmarks").glob("*.yaml") if path.stem != "dvc")


def paper_names() -> list[str]:
    return sorted(path.parent.name for path in (root() / "baselines").glob("*/params.yaml"))


def params(paper: str) -> Params:
    path = root() / "baselines" / paper / "params.yaml"
    if not path.parent.is_dir():
        raise ConfigError(f"no paper {paper!r} in {path.parent.parent}; there are: {', '.join(paper_names())}")
    return _whole(Params, path, _state(path))


def published(paper: str) -> Published | None:
    """What the paper printed, or None for a baseline without a paper (the controls)."""
    path = root() / "baselines" / paper / "published.yaml"
    if not path.exists():
        return None
    said = _whole(Published, path, _state(path))
    for place, row in said.rows():
        _check_row(f"{path}: {place}", row.paper or paper, row)
    return said


def _check_row(place: str, paper: str, row: Row) -> None:
    """ConfigError where a number or a claim is about a row that no board can have."""
    if paper not in paper_names():
        raise ConfigError(f"{place}: no paper {paper!r}; there are: {', '.join(paper_names())}")
    if row.variant not in (variants := params(paper).variants):
        raise ConfigError(f"{place}: {paper} has no variant {row.variant!r}; it has: {', '.join(variants)}")
    if not (root() / "benchmarks" / f"{row.run}.yaml").is_file():
        raise ConfigError(f"{place}: no benchmark {row.run!r}; there are: {', '.join(benchmark_names())}")


def papers_on(benchmark: str) -> list[str]:
    """The papers that stand on a benchmark."""
    return [paper for paper in paper_names() if benchmark in params(paper).on]


def board_names() -> list[str]:
    """The benchmarks that any paper stands on, each of them a board."""
    return sorted({run for paper in paper_names() for run in params(paper).on})


def _state(path: Path) -> tuple[int, int] | None:
    """What changes whenever the file does."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a hot path
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@functools.lru_cache(maxsize=1024)
def _benchmark(path: Path, state: tuple[int, int] | None, scale: Scale) -> Benchmark:
    content = _read(path)
    sections = {name: content.get(name) or {} for name in ("about", "common", *SCALES)}
    unknown = sorted(set(content) - set(sections))
    if unknown:
        raise ConfigError(f"{path}: unknown section {unknown}; expected {', '.join(sections)}")
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise ConfigError(f"{path}: {name} holds {type(section).__name__}, expected a mapping")
        misplaced = sorted(set(section) - set(ABOUT)) if name == "about" else sorted(set(section) & set(ABOUT))
        if misplaced:
            raise ConfigError(f"{path}: {misplaced} in section {name}; `about` holds {' and '.join(ABOUT)}, no other")
    merged = merge(sections["common"], sections[scale])
    return _build(Benchmark, path, {"name": path.stem, "scale": scale, **sections["about"], **merged})


@functools.lru_cache(maxsize=1024)
def _whole(kind: type[T], path: Path, state: tuple[int, int] | None) -> T:
    return _build(kind, path, _read(path))


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


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Sections above win over those below, key by key, in nested sections too."""
    both = {key for key in below.keys() & above.keys() if isinstance(below[key], dict) and isinstance(above[key], dict)}
    return {**below, **above, **{key: merge(below[key], above[key]) for key in both}}
