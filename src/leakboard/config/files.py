"""The content folders, found and read: a file is parsed once for each of its states, and a message names it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from leakboard.config.benchmark import SCALES, Benchmark, Scale
from leakboard.config.checkout import root
from leakboard.config.hashes import digest
from leakboard.config.kinds import A_NAME, is_name
from leakboard.config.papers import Params, Published, Row
from leakboard.config.sections import ConfigError
from leakboard.config.texts import state_of, text_of, there
from leakboard.config.yaml12 import parsed, said
from leakboard.errors import brief, one_line

T = TypeVar("T", bound=BaseModel)
ABOUT = ("question", "metrics")
GIVEN = ("name", "scale")  # by the name of the file and by the call
VICTIMS = "victims"  # where results hold what was trained, beside the papers
MOST_BYTES = 1_000_000
LIKE = "like"
SHOWN = 3  # faults named per file; the rest are counted


def benchmark(name: str, scale: Scale, folder: Path | None = None) -> Benchmark:
    """The benchmark `benchmarks/<name>.yaml` at one scale. ConfigError names the file and what is wrong in it."""
    path = (folder or root() / "benchmarks") / f"{checked_name(name, 'a benchmark')}.yaml"
    stated = _likeness(path, _sections(path, state_of(path)))
    other = path if stated is None else path.with_name(f"{stated[0]}.yaml")
    return _benchmark(path, (state_of(path), state_of(other)), scale)


def like(name: str) -> str | None:
    """The benchmark that `common: like` of another names, whose question it asks with what it says itself on top."""
    path = root() / "benchmarks" / f"{checked_name(name, 'a benchmark')}.yaml"
    if not there(path):
        return None
    stated = _likeness(path, _sections(path, state_of(path)))
    return None if stated is None else stated[0]


def benchmark_names() -> list[str]:
    """Those of the files in `benchmarks/`; ConfigError where one is no name."""
    files = [path for path in (root() / "benchmarks").glob("*.yaml") if not path.name.startswith(".")]
    return sorted(_named(path, path.stem) for path in files if path.stem != "dvc")


def paper_names() -> list[str]:
    """Those of the folders in `baselines/` that hold a `params.yaml`; ConfigError where one is no name."""
    files = [folder / "params.yaml" for folder in (root() / "baselines").iterdir() if folder.is_dir()]
    names = sorted(_named(path, path.parent.name) for path in files if there(path))
    if VICTIMS in names:
        raise ConfigError(
            f"{root() / 'baselines' / VICTIMS}: found a paper of this name, which records of victims have"
        )
    return names


def checked_name(text: str, what: str) -> str:
    """The name, if it is one; else ConfigError: it must never become part of a path."""
    if not is_name(text):
        raise ConfigError(f"found {brief(text)} as the name of {what}, expected {A_NAME}")
    return text


def _named(path: Path, name: str) -> str:
    if not is_name(name):
        raise ConfigError(f"{path}: found the name {brief(name)}, expected {A_NAME}")
    return name


def params(paper: str) -> Params:
    path = root() / "baselines" / checked_name(paper, "a paper") / "params.yaml"
    if not path.parent.is_dir():
        raise ConfigError(f"no paper {paper!r} in {path.parent.parent}; there are: {', '.join(paper_names())}")
    return _whole(Params, path, state_of(path))


def published(paper: str) -> Published | None:
    """What the paper printed, or None for a baseline without a paper (the controls)."""
    path = root() / "baselines" / checked_name(paper, "a paper") / "published.yaml"
    if not there(path):
        return None
    stated = _whole(Published, path, state_of(path))
    for place, row in stated.rows():
        _check_row(f"{path}: {place}", row.paper or paper, row)
    return stated


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
    return [paper for paper in paper_names() if benchmark in params(paper).boards]


CONTROLS = "controls"  # the paper whose rows attack nothing, on every board


def controls() -> frozenset[tuple[str, str]]:
    """{(paper, row)} of the rows that tell what one gets without attacking: they stand beside the ranks."""
    return frozenset((paper, row) for paper in paper_names() for row in params(paper).controls)


def board_names() -> list[str]:
    """The benchmarks that any paper stands on, each of them a board."""
    return sorted({run for paper in paper_names() for run in params(paper).boards})


@functools.lru_cache(maxsize=1024)
def _benchmark(path: Path, states: tuple[tuple[int, int, int], ...], scale: Scale) -> Benchmark:
    own = _sections(path, states[0])
    common = {key: value for key, value in own["common"].items() if key != LIKE}
    about, merged = own["about"], merge(common, own[scale])
    if (stated := _likeness(path, own)) is not None:
        below = _asked_there(path, *stated)
        about = {**below["about"], **about}
        merged = merge(merge(below["common"], below[scale]), merged)
    return built(Benchmark, path, {"name": path.stem, "scale": scale, **about, **merged})


@functools.lru_cache(maxsize=1024)
def _sections(path: Path, state: tuple[int, int, int]) -> dict[str, dict[str, Any]]:
    """The sections of a benchmark file, none of them absent; ConfigError where a key stands in the wrong one."""
    content = _read(path)
    sections = {name: _or_empty(content.get(name)) for name in ("about", "common", *SCALES)}
    unknown = sorted(set(content) - set(sections))
    if unknown:
        raise ConfigError(f"{path}: found the sections {unknown}, expected {', '.join(sections)}")
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise ConfigError(f"{path}: {name}: found {brief(section)}, expected a mapping")
        misplaced = sorted(set(section) - set(ABOUT)) if name == "about" else sorted(set(section) & set(ABOUT))
        if misplaced:
            raise ConfigError(f"{path}: {misplaced} in section {name}; `about` holds {' and '.join(ABOUT)}, no other")
        if given := sorted(set(section) & set(GIVEN)):
            raise ConfigError(f"{path}: {name}: found {given}, which the file's name and the section say")
    return sections


def _likeness(path: Path, sections: dict[str, dict[str, Any]]) -> tuple[str, str] | None:
    """(the benchmark that this one is like, the stamp of what that asks); None where it stands alone."""
    if LIKE not in sections["common"]:
        return None
    said = sections["common"][LIKE]
    name, at, stamp = said.partition("@") if isinstance(said, str) else ("", "", "")
    if not is_name(name) or not at or name == path.stem:
        raise ConfigError(
            f"{path}: common.{LIKE}: found {brief(said)}, expected the name of another benchmark, @, stamp"
        )
    for section in ("common", *SCALES):
        if unknown := sorted(set(sections[section]) - {*Benchmark.model_fields, LIKE}):
            raise ConfigError(f"{path}: {section}: found {unknown}, which are no keys of a benchmark")
    return name, stamp


def _asked_there(path: Path, name: str, stamp: str) -> dict[str, dict[str, Any]]:
    """The sections of the benchmark that another is like. ConfigError unless the stamp is theirs: dvc tracks the file
    that says `like` and sees no other, so what changes there must change here.
    """
    other = path.with_name(f"{name}.yaml")
    sections = _sections(other, state_of(other))
    if LIKE in sections["common"]:
        raise ConfigError(f"{path}: common.{LIKE}: {other} is itself like another benchmark, expected one that is not")
    today = digest({section: sections[section] for section in ("common", *SCALES)})
    if stamp != today:
        raise ConfigError(
            f"{path}: common.{LIKE}: found {name}@{stamp}, expected {name}@{today}, as that file now asks"
        )
    return sections


def _or_empty(section: Any) -> Any:
    return {} if section is None else section


@functools.lru_cache(maxsize=1024)
def _whole(kind: type[T], path: Path, state: tuple[int, int, int]) -> T:
    return built(kind, path, _read(path))


def _read(path: Path) -> dict[str, Any]:
    if not there(path):
        known = sorted(p.stem for p in path.parent.glob("*.yaml") if p.stem != "dvc") if path.parent.is_dir() else []
        raise ConfigError(f"{path} does not exist" + (f"; there are: {', '.join(known)}" if known else ""))
    try:
        content = parsed(text_of(path, ConfigError, MOST_BYTES))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {said(error)}") from None
    if not isinstance(content, dict):
        found = "nothing" if content is None else type(content).__name__
        raise ConfigError(f"{path} holds {found}, expected a mapping")
    return content


def built(kind: type[T], path: Path, content: Any) -> T:
    """The content of a file as a typed object; ConfigError names the file and of each fault place, found, expected."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults = [_fault(one) for one in error.errors(include_url=False)]
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise ConfigError(f"{path}: {'; '.join(faults[:SHOWN])}{more}") from None


def _fault(error: ErrorDetails) -> str:
    """`place: found this, expected that`, from what pydantic says."""
    place, kind, message = one_line(".".join(map(str, error["loc"]))), error["type"], error["msg"]
    if kind == "value_error":
        fault = message.removeprefix("Value error, ")
    elif kind == "missing":
        fault = "found nothing, expected a value"
    elif kind == "extra_forbidden":
        fault = "found a key that is none"
    else:
        wanted = message.removeprefix("Input should be ")
        wanted = f"a number {wanted}" if wanted.startswith(("greater", "less")) else wanted
        fault = f"found {brief(error['input'])}, expected {wanted}"
    return f"{place}: {fault}" if place else fault


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Sections above win over those below, key by key, in nested sections too."""
    both = {key for key in below.keys() & above.keys() if isinstance(below[key], dict) and isinstance(above[key], dict)}
    return {**below, **above, **{key: merge(below[key], above[key]) for key in both}}
