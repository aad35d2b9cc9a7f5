"""Getting a data set from its official origin: download to a `.part` file, verify, rename, unpack."""

from __future__ import annotations

import shutil
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

from leakboard.data.places import DataError, data_root, digest
from leakboard.data.sources import checksum_of, how_to_get, source, state, verify

PATIENCE = 30  # seconds without an answer


def fetch(name: str) -> None:
    """Bring a data set below the data root; nothing happens when it is already here and right.

    Raises DataError without network, when a checksum does not fit, or when the origin offers no direct download.
    """
    entry = source(name)
    if state(name) == "here":
        wrong = [row for row in verify(name) if not row[3]]
        if not wrong:
            return
        raise DataError(f"{wrong[0][0]}: expected {wrong[0][1]}, found {wrong[0][2]}; delete it, then fetch again")
    recipe = entry.get("fetch", {})
    folder = data_root() / recipe.get("folder", name)
    if "torchvision" in recipe:
        _through_torchvision(recipe["torchvision"], name)
    elif "archive" in recipe:
        archive = folder / Path(recipe["archive"]).name
        download([recipe["archive"]], archive, "md5", recipe["md5"])
        if recipe["unpack"]:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
    elif "urls" in recipe:
        _each_file(entry["variants"]["official"]["files"], recipe["urls"], folder)
    else:
        raise DataError(f"{name} cannot be fetched automatically: {recipe.get('manual', 'it ships with a package')}")


def _each_file(files: list[dict[str, Any]], urls: list[str], folder: Path) -> None:
    for file in files:
        download([url.format(name=file["name"]) for url in urls], folder / file["name"], *checksum_of(file))


def _through_torchvision(class_name: str, name: str) -> None:
    """torchvision's own downloader, which checks the official md5 sums itself."""
    import torchvision.datasets

    try:
        getattr(torchvision.datasets, class_name)(str(data_root()), download=True)
    except Exception as error:
        raise DataError(f"torchvision could not download {name}: {error}. {how_to_get(name)}") from error


def download(urls: list[str], target: Path, algorithm: str, expected: str) -> Path:
    """The target file from the first address that answers, moved into place only once its checksum is right.

    A target that is already right is kept. Raises DataError that names every address and what went wrong there.
    """
    if target.is_file() and digest(target, algorithm) == expected:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    failures = []
    for url in urls:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer, part.open("wb") as file:
                shutil.copyfileobj(answer, file)
            found = digest(part, algorithm)
            if found == expected:
                return part.replace(target)
            failures.append(f"{url}: {algorithm} expected {expected}, found {found}")
        except OSError as error:
            failures.append(f"{url}: {error}")
        finally:
            part.unlink(missing_ok=True)
    raise DataError(f"could not fetch {target.name}: {'; '.join(failures)}")
