"""Whether an entry of `published.yaml` stood there, as it stands now, at the commit of the trials that it judges.

What is compared is what was promised: metric, rows, value, tolerance, relation and margin, not the words around it.
Where git cannot tell, in a shallow clone or without git, what `published.csv` states of the same promise stands.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from leakboard.config import Claim, PublishedNumber, Scale, root

Promise = tuple[Any, ...]
YES, POST_HOC, UNKNOWN = "yes", "post hoc", ""
STATED_BY = ("paper", "run", "metric", "published", "tolerance")


def registered(paper: str, entry: PublishedNumber | Claim, scale: Scale, commits: Iterable[str]) -> str | None:
    """`yes`, `post hoc`, nothing where no trial names a commit; None where git lacks one that would have to tell."""
    if entry.post_hoc:
        return POST_HOC
    asked = sorted({commit for commit in commits if commit})
    if not asked:
        return UNKNOWN
    wanted = promise(entry.model_dump(mode="json"), scale)
    stood = [_promises(_blob(commit, paper), scale) for commit in asked]
    if any(wanted not in one for one in stood if one is not None):
        return POST_HOC
    return None if None in stood else YES


def stated(path: Path) -> dict[Promise, str]:
    """{what a row of `published.csv` promises (`STATED_BY`, as the file has them): its cell `registered`}"""
    found: dict[Promise, str] = {}
    with contextlib.suppress(OSError, csv.Error), path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            if row.get("registered") in (YES, POST_HOC):
                found[tuple(row.get(name) for name in STATED_BY)] = row["registered"]
    return found


def promise(entry: dict[str, Any], scale: Scale) -> Promise:
    """What an entry, as YAML has it, promises at this scale; () where it says nothing about it."""
    asked = entry.get("scale", "paper")
    if scale not in ((asked,) if isinstance(asked, str) else asked):
        return ()
    if "left" not in entry:
        return (
            *(entry.get(name) for name in ("run", "variant", "metric")),
            *map(_number, _of(entry, "value tolerance")),
        )
    sides = (_side(entry.get(name)) for name in ("left", "right"))
    return (entry.get("metric"), entry.get("relation"), *sides, *map(_number, _of(entry, "value margin")))


def _of(entry: dict[str, Any], names: str) -> list[Any]:
    return [entry.get(name) for name in names.split()]


def _number(value: Any) -> float:
    return float(value or 0.0)


def _side(side: dict[str, Any] | None) -> Promise:
    return () if side is None else tuple(_of(side, "paper run variant"))


@functools.lru_cache(maxsize=1024)
def _blob(commit: str, paper: str) -> str | None:
    """The content's name in git; None where git, or the commit, is not there. '' : no such file at that commit."""
    if not _git("cat-file", "-e", f"{commit}^{{commit}}"):
        return None
    found = _git("rev-parse", "-q", "--verify", f"{commit}:baselines/{paper}/published.yaml")
    return found.decode().strip() if found else ""


@functools.lru_cache(maxsize=256)
def _promises(blob: str | None, scale: Scale) -> frozenset[Promise] | None:
    if blob is None:
        return None
    content: Any = None
    with contextlib.suppress(yaml.YAMLError):
        content = yaml.load(_git("cat-file", "blob", blob), _LOADER) if blob else None
    if not isinstance(content, dict):
        return frozenset()
    listed = [*(content.get("numbers") or ()), *(content.get("claims") or ())]
    return frozenset(promise(one, scale) for one in listed if isinstance(one, dict)) - {()}


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a safe one, and ten times as fast


def _git(*words: str) -> bytes:
    """What git says, nothing where it fails; of a question that is answered by the exit status alone, an empty line."""
    try:
        done = subprocess.run(["git", "-C", str(Path(root())), *words], capture_output=True, check=False)
    except OSError:
        return b""
    return (done.stdout or b"\n") if done.returncode == 0 else b""
