"""What the dvc.lock files record against what lies in the working tree: md5 of files, values of parameters. No dvc."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from leakboard.config.yaml12 import Yaml12

LOCKS = ("dvc.lock", "benchmarks/dvc.lock", "baselines/*/dvc.lock", "results/*/dvc.lock")
ABSENT = "nothing"


class Mismatch(NamedTuple):
    """One record that no longer holds; file: the path whose content or value is meant."""

    file: str
    what: str
    found: str
    expected: str


def mismatches(root: Path) -> list[Mismatch]:
    """Every record of every lock file under `root` that the working tree contradicts, each once."""
    found: dict[Mismatch, None] = {}
    for pattern in LOCKS:
        for lock in sorted(root.glob(pattern)):
            found.update(dict.fromkeys(_lock_mismatches(root, lock)))
    return list(found)


def _lock_mismatches(root: Path, lock: Path) -> Iterator[Mismatch]:
    name = lock.relative_to(root).as_posix()
    try:
        stages = _yaml(lock).get("stages") or {}
    except yaml.YAMLError as error:
        yield Mismatch(name, "is readable", str(error).splitlines()[0], "YAML")
        return
    for stage in stages.values():
        for entry in (*stage.get("deps", ()), *stage.get("outs", ())):
            yield from _file_mismatch(root, name, entry)
        for file, values in stage.get("params", {}).items():
            yield from _value_mismatches(root, name, file, values or {})


def _file_mismatch(root: Path, lock: str, entry: dict[str, Any]) -> Iterator[Mismatch]:
    """A folder (md5 ends in .dir) is skipped: the files in it are outs of their own stages."""
    expected, path = str(entry.get("md5", "")), root / entry["path"]
    if not expected or expected.endswith(".dir"):
        return
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if path.is_file() else ABSENT
    if found != expected:
        yield Mismatch(entry["path"], f"md5 in {lock}", found, expected)


def _value_mismatches(root: Path, lock: str, file: str, values: dict[str, Any]) -> Iterator[Mismatch]:
    path = root / file
    now = _values(path) if path.is_file() else {}
    for key, recorded in values.items():
        current = _at(now, key)
        if current != recorded:
            yield Mismatch(file, f"{key} in {lock}", *_difference(current, recorded))


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
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def _yaml(path: Path) -> dict[str, Any]:
    return _parsed(path.read_text())


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> dict[str, Any]:
    content = yaml.load(text, Loader=Yaml12)
    return content if isinstance(content, dict) else {}
