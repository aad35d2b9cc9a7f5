"""Where things lie on disk (data root, packages that carry data), and when a file may be trusted."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import tempfile
from functools import lru_cache
from pathlib import Path

from leakboard.config.checkout import suites
from leakboard.errors import Fault


class DataError(Fault):
    """A data set or weight file is absent, incomplete, unknown or not what its checksum says."""


def data_root() -> Path:
    """The folder below which data sets lie: LEAKBOARD_DATA, otherwise `datasets/` of the repository."""
    named = os.environ.get("LEAKBOARD_DATA")
    if named:
        return Path(named).expanduser().resolve()
    return next(iter(suites()), Path.cwd()) / "datasets"


def package_folder(package: str) -> Path:
    """The installed folder of a package, found without importing it; raises DataError when it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"the package {package}, which carries bundled images, is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def digest(path: Path, algorithm: str) -> str:
    """Hex digest of a whole file; algorithm is `sha256` or `md5` (official archives publish nothing better)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def known_digest(path: Path, algorithm: str) -> str:
    """As `digest`, but hashes a file once: the result is kept by (path, size, time of change), here and on disk."""
    status = path.stat()
    key = f"{algorithm} {path} {status.st_size} {status.st_mtime_ns}"
    return _digest_by_key(key, path, algorithm)


def verified(path: Path, algorithm: str, expected: str) -> Path:
    """The path, once its digest starts with `expected`; otherwise raises DataError with both checksums."""
    found = known_digest(path, algorithm)
    if not found.startswith(expected):
        raise DataError(
            f"{path}: wrong or damaged file, never used: {algorithm} expected {expected}, found {found}. "
            "Delete it and get it again."
        )
    return path


@lru_cache(maxsize=4096)
def _digest_by_key(key: str, path: Path, algorithm: str) -> str:
    remembered = _remembered()
    if key not in remembered:
        remembered = {**_remembered(), key: digest(path, algorithm)}
        _remember(remembered)
    return remembered[key]


def _memory_file() -> Path | None:
    return next((folder / "build" / "verified.json" for folder in suites()), None)


def _remembered() -> dict[str, str]:
    file = _memory_file()
    try:
        return dict(json.loads(file.read_text())) if file else {}
    except (OSError, ValueError):
        return {}


def _remember(digests: dict[str, str]) -> None:
    """Write to a temporary name and rename, so that workers that start together never read half a file."""
    file = _memory_file()
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix="verified.", delete=False) as written:
            json.dump(digests, written, indent=0)
        Path(written.name).replace(file)
    except OSError:  # a read-only checkout only costs the time to hash again
        return
