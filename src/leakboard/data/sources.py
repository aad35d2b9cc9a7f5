"""`datasets/sources.toml` as functions: what there is, its files, whether they are right, how to get them."""

from __future__ import annotations

import shutil
import tarfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leakboard.config import Benchmark
from leakboard.config.checkout import suites
from leakboard.config.data_sets import WEIGHTS, read
from leakboard.config.texts import there
from leakboard.data.places import DataError, data_root, digest, known_digest, package_folder, verified
from leakboard.errors import brief

PATIENCE = 30  # seconds without an answer


def _everything() -> dict[str, Any]:
    for folder in suites():
        if there(path := folder / "datasets" / "sources.toml"):
            return read(path)
    raise DataError("datasets/sources.toml is not here: run inside a checkout of Leakboard")


def sources() -> dict[str, dict[str, Any]]:
    """Data set name -> its entry: title, origin, licence, citation, classes, shape, length, variants, fetch."""
    return {name: entry for name, entry in _everything().items() if name != WEIGHTS}


def weight_sources() -> dict[str, dict[str, Any]]:
    """Weight file name -> its entry in sources.toml (title, origin, licence, folders, files)."""
    return dict(_everything().get(WEIGHTS, {}))


def source(name: str) -> dict[str, Any]:
    """The entry of one data set; raises DataError that lists the names when there is none."""
    known = sources()
    if name not in known:
        raise DataError(f"no data set named {brief(name)} in datasets/sources.toml; there are {', '.join(known)}")
    return known[name]


def refuse_too_many(benchmark: Benchmark, trials: Sequence[int]) -> None:
    """DataError, before anything runs, where a trial would need images beyond the official number of its data set.

    Of images of one's own, of targets that take turns and of equal labels only the images themselves can tell.
    """
    images = benchmark.data
    if not trials or images.name is None or benchmark.by_class or benchmark.equal_labels is not None:
        return
    if (length := source(images.name)["length"].get(images.split)) is None:
        return
    room = max(0, length - images.start if images.count is None else min(images.count, length - images.start))
    last = max(trials)
    if (needed := (last + 1) * benchmark.batch) > room:
        raise DataError(
            f"benchmarks/{benchmark.name}.yaml: {images} has {length:,} images, of which {room:,} are victims; trials "
            f"up to {last} of {benchmark.batch} need {needed:,}"
        )


def how_to_get(name: str) -> str:
    """One sentence for error messages: what a person can do to obtain the data set."""
    return (
        f"Point the environment variable LEAKBOARD_DATA at a folder that holds it (now {data_root()}), "
        f"or run `leakboard data fetch {name}` (origin: {source(name)['origin']})."
    )


def folders_of(variant: dict[str, Any]) -> list[Path]:
    """Where the files of a variant may lie, in order of preference."""
    if "package" in variant:
        return [package_folder(variant["package"])]
    return [data_root() / folder for folder in variant["folders"]]


def checksum_of(file: dict[str, Any]) -> tuple[str, str]:
    """(algorithm, expected hex digest) of a file entry."""
    return ("sha256", file["sha256"]) if "sha256" in file else ("md5", file["md5"])


def _folder_with(variant: dict[str, Any], files: list[dict[str, Any]]) -> Path | None:
    for folder in folders_of(variant):
        if files and all((folder / file["name"]).is_file() for file in files):
            return folder
    return None


def _files_of(variant: dict[str, Any], split: str | None) -> list[dict[str, Any]]:
    return [file for file in variant["files"] if split is None or file.get("split", split) == split]


def located(name: str, variant: str, split: str | None = None) -> dict[str, Path] | None:
    """File name -> path of a variant's files for a split, every checksum verified; None when one of them is not here.

    Raises DataError when a file is here but damaged.
    """
    entry = source(name)["variants"][variant]
    files = _files_of(entry, split)
    folder = _folder_with(entry, files)
    if folder is None:
        return None
    return {file["name"]: verified(folder / file["name"], *checksum_of(file)) for file in files}


def required(name: str, variant: str, split: str | None = None) -> dict[str, Path]:
    """As `located`, but raises DataError that says how to get the data set when it is not here."""
    files = located(name, variant, split)
    if files is None:
        looked = ", ".join(str(folder) for folder in folders_of(source(name)["variants"][variant]))
        part = f" (split {split})" if split else ""
        raise DataError(f"data set {name}{part} is not here; looked in {looked}. {how_to_get(name)}")
    return files


def _present(entry: dict[str, Any]) -> list[str]:
    """Names of the variants of which at least one file is here."""
    return [
        variant
        for variant, description in entry["variants"].items()
        if any(_folder_with(description, [file]) for file in description["files"])
    ]


def verify(name: str) -> list[tuple[str, str, str, bool]]:
    """(file, expected, found, ok) for every file of the variants that are here, or of the first one when none is.

    `found` is `absent` for a missing file. Hashes afresh what changed; known results are reused. `name` may be weights.
    """
    if name in weight_sources():
        entry: dict[str, Any] = {"variants": {"weights": weight_sources()[name]}}
    else:
        entry = source(name)
    rows = []
    for variant in _present(entry) or list(entry["variants"])[:1]:
        description = entry["variants"][variant]
        for file in description["files"]:
            algorithm, expected = checksum_of(file)
            folder = _folder_with(description, [file])
            found = known_digest(folder / file["name"], algorithm) if folder else "absent"
            rows.append((str((folder or Path()) / file["name"]), expected, found, found.startswith(expected)))
    return rows


def state(name: str) -> str:
    """`here`, `partial` or `absent`, by the presence of files only (checksums are checked before use)."""
    entry = source(name)
    whole = [v for v in entry["variants"].values() if not v.get("partial")]
    if any("package" in v for v in whole):
        return "here" if all(_folder_with(v, v["files"]) for v in whole) else "absent"
    if any(_folder_with(v, v["files"]) for v in whole):
        return "here"
    return "partial" if _present(entry) else "absent"


def listing() -> list[dict[str, str]]:
    """One row per data set, as strings for a table: name, images, classes, shape, licence, state, title."""
    return [
        {
            "name": name,
            "images": ", ".join(f"{count:,} {split}" for split, count in entry["length"].items()),
            "classes": f"{entry['classes']:,}",
            "shape": "x".join(str(side) for side in entry["shape"]),
            "licence": entry["licence"],
            "state": state(name),
            "title": entry["title"],
        }
        for name, entry in sources().items()
    ]


def fetch(name: str) -> None:
    """Bring a data set below the data root, each file as `.part` until its checksum is right; a no-op when all is here.

    Raises DataError without network, when a checksum does not fit, or when the origin offers no direct download.
    """
    entry = source(name)
    if state(name) == "here" and all(right for _, _, _, right in verify(name)):
        return
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
