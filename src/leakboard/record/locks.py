"""What the dvc.lock files record against what lies in the working tree. No dvc.

md5 of files, values of parameters, and whether every stage that a dvc.yaml gives is recorded at all.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from leakboard.config import yaml12
from leakboard.config.texts import text_of, there
from leakboard.errors import Fault, brief
from leakboard.record.cells import RecordError

LOCKS = ("dvc.lock", "benchmarks/dvc.lock", "baselines/*/dvc.lock", "results/*/dvc.lock")
ABSENT = "nothing"
SHOWN = 5  # stages named per lock; the rest are counted
MOST_SAID = 300  # characters of what a reader of YAML says


class Mismatch(NamedTuple):
    """One record that no longer holds; file: the path whose content or value is meant; mend: what puts it right."""

    file: str
    what: str
    found: str
    expected: str
    mend: str = ""


def mismatches(root: Path) -> list[Mismatch]:
    """Every record of every lock file under `root` that the working tree contradicts, each once; and what lacks one."""
    found: dict[Mismatch, None] = {}
    for pattern in LOCKS:
        for lock in _files(root, pattern):
            found.update(dict.fromkeys(_readable(root, lock, _lock_mismatches)))
        for stages in _files(root, pattern.replace(".lock", ".yaml")):
            found.update(dict.fromkeys(_readable(root, stages, _lacking)))
    return list(found)


def _files(root: Path, pattern: str) -> list[Path]:
    """Files of a name in the folders of a pattern; links that lead nowhere among them, which a glob leaves out."""
    folders, _, name = pattern.rpartition("/")
    return [file for folder in (sorted(root.glob(folders)) if folders else [root]) if there(file := folder / name)]


def _readable(root: Path, file: Path, read: Callable[[Path, Path], Iterator[Mismatch]]) -> list[Mismatch]:
    """What is found in a file, or that it is damaged: bad content is a finding, whatever it does to its reader."""
    try:
        return list(read(root, file))
    except Exception as error:
        return [_unreadable(file.relative_to(root).as_posix(), error)]


def _unreadable(file: str, error: Exception) -> Mismatch:
    said = yaml12.said(error) if isinstance(error, yaml.YAMLError) else " ".join(str(error).split())
    kind = "no YAML: " if isinstance(error, yaml.YAMLError) else f"{type(error).__name__}: "
    kind = "" if isinstance(error, Fault) else kind
    found = f"{kind}{said[:MOST_SAID]}{' ...' if len(said) > MOST_SAID else ''}"
    return Mismatch(file, "is readable", found, "a whole file", f"`git checkout -- {file}` restores it")


def _lock_mismatches(root: Path, lock: Path) -> Iterator[Mismatch]:
    name = lock.relative_to(root).as_posix()
    content = _checked(_content(lock), dict, name)
    for title, stage in _checked(content.get("stages"), dict, "stages", absent=True).items():
        for kind in ("deps", "outs"):
            entries = _checked(stage, dict, title).get(kind)
            for entry in _checked(entries, list, f"{kind} of {title}", absent=True):
                yield from _file_mismatch(root, name, _checked(entry, dict, f"an entry in {kind} of {title}"))
        for file, values in _checked(stage.get("params"), dict, f"params of {title}", absent=True).items():
            stated = _checked(values, dict, f"params of {title}: {file}", absent=True)
            yield from _value_mismatches(root, name, file, stated)


def _checked(value: Any, kind: type, what: str, absent: bool = False) -> Any:
    """A mapping or a list as it should be, where it may be absent an empty one; RecordError for another thing."""
    if value is None and absent:
        return kind()
    if not isinstance(value, kind):
        expected = "a mapping" if kind is dict else "a list"
        raise RecordError(f"{what}: found {'nothing' if value is None else brief(value)}, expected {expected}")
    return value


def _lacking(root: Path, stages: Path) -> Iterator[Mismatch]:
    """Stages of a dvc.yaml that its lock records not at all or without results: nothing tells what these are to be."""
    name, lock = stages.relative_to(root).as_posix(), stages.with_name("dvc.lock")
    recorded = (_yaml(lock).get("stages") or {}) if lock.exists() else {}
    lacking = [stage for stage in stage_names(stages) if not _has_results(recorded.get(stage))]
    if not lacking:
        return
    more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
    found = ("no such file, " if not lock.exists() else "") + f"no {', '.join(lacking[:SHOWN])}{more}"
    file = lock.relative_to(root).as_posix()
    mend = (
        f"`git checkout -- {file}`; of new stages, `leakboard reproduce` and `dvc commit -f -q '{name}:{lacking[0]}'`"
    )
    yield Mismatch(file, f"records every stage of {name}", found, f"{len(lacking)} more", mend)


def _has_results(stage: Any) -> bool:
    return isinstance(stage, dict) and bool(stage.get("outs"))


def stage_names(file: Path) -> list[str]:
    """The stages that a dvc.yaml gives: of a matrix, `name@first-second` for each combination, as dvc names them."""
    content, names = _yaml(file), []
    for name, stage in content.get("stages", {}).items():
        lists = [_options(file, content, values) for values in stage.get("matrix", {}).values()]
        names += [f"{name}@{'-'.join(map(str, one))}" for one in itertools.product(*lists)] if lists else [name]
    return names


def _options(file: Path, content: dict[str, Any], values: Any) -> list[Any]:
    """What a key of a matrix goes through: a list, or `${key}` of a file that `vars` names. ValueError for others."""
    if isinstance(values, str) and values.startswith("${") and values.endswith("}"):
        named = [_yaml(file.parent / one) for one in content.get("vars", []) if isinstance(one, str)]
        values = next((found for one in named if (found := _at(one, values[2:-1])) != ABSENT), ABSENT)
    if not isinstance(values, (list, dict)):
        raise ValueError(f"a matrix over {values!r}, expected a list or the name of one")
    return list(values)


def _file_mismatch(root: Path, lock: str, entry: dict[str, Any]) -> Iterator[Mismatch]:
    """A folder (md5 ends in .dir) is skipped: the files in it are outs of their own stages."""
    expected, named = entry.get("md5"), entry.get("path")
    if not isinstance(expected, str) or not isinstance(named, str):
        raise RecordError(f"found {brief(entry)}, expected an entry with words for path and md5")
    if not named.isprintable() or Path(named).is_absolute() or ".." in Path(named).parts:
        raise RecordError(f"found the path {brief(named)}, expected one inside of the checkout")
    if expected.endswith(".dir"):
        return
    path = root / named
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if path.is_file() else ABSENT
    if found != expected:
        yield Mismatch(entry["path"], f"md5 in {lock}", found, expected, _either(entry["path"], lock))


def _value_mismatches(root: Path, lock: str, file: str, values: dict[str, Any]) -> Iterator[Mismatch]:
    path = root / file
    try:
        now = _values(path) if path.is_file() else {}
    except (yaml.YAMLError, SyntaxError, ValueError) as error:
        yield _unreadable(file, error)
        return
    for key, recorded in values.items():
        current = _at(now, key)
        if current != recorded:
            yield Mismatch(file, f"{key} in {lock}", *_difference(current, recorded), _either(file, lock))


def _either(file: str, lock: str) -> str:
    """What mends a file that is not as recorded: undo the change, or run what depends on it."""
    return f"`git checkout -- {file}`; where the change is meant, `dvc repro {lock.removesuffix('.lock')}.yaml`"


def _difference(found: Any, expected: Any) -> tuple[str, str]:
    """Two unequal values as text, narrowed down to the first place where mappings differ."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys(), key=str):
            one, other = found.get(key, ABSENT), expected.get(key, ABSENT)
            if one != other:
                left, right = _difference(one, other)
                return f"{key}: {left}", f"{key}: {right}"
    return str(found), str(expected)


def _at(values: Any, key: str) -> Any:
    """values[a][b] for the key 'a.b', `ABSENT` where there is none; a key with a dot in its name comes first."""
    if isinstance(values, dict) and key in values:
        return values[key]
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return ABSENT
        values = values[part]
    return values


def _values(path: Path) -> Any:
    return _assignments(path) if path.suffix == ".py" else _yaml(path)


def _assignments(path: Path) -> dict[str, Any]:
    """The constants that a Python file assigns at its top level."""
    found: dict[str, Any] = {}
    for node in ast.parse(text_of(path, RecordError)).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def _yaml(path: Path) -> dict[str, Any]:
    content = _content(path)
    return content if isinstance(content, dict) else {}


def _content(path: Path) -> Any:
    return _parsed(text_of(path, RecordError))


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    return yaml12.parsed(text)
