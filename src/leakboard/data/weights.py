"""Pretrained weight files, checked before anyone loads them (callers load with `weights_only=True`)."""

from __future__ import annotations

import os
from pathlib import Path

from leakboard.data.places import DataError, data_root, verified
from leakboard.data.sources import checksum_of, weight_sources


def weights_file(name: str) -> Path:
    """The verified file of these weights: below the data root's `weights/`, or where torch's hub keeps its downloads.

    Raises DataError for an unknown name, when the file is absent, and when its checksum is wrong.
    """
    known = weight_sources()
    if name not in known:
        raise DataError(f"no weights named {name!r}; there are {', '.join(known)}")
    entry = known[name]
    folders = [_hub_folder() if folder == "hub" else data_root() / folder for folder in entry["folders"]]
    for folder in folders:
        for file in entry["files"]:
            if (folder / file["name"]).is_file():
                return verified(folder / file["name"], *checksum_of(file))
    wanted = " or ".join(file["name"] for file in entry["files"])
    places = ", ".join(str(folder) for folder in folders)
    raise DataError(
        f"weights {name} ({wanted}) are not here; looked in {places}. Point LEAKBOARD_DATA at a folder that holds them "
        f"below weights/ (origin: {entry['origin']})."
    )


def _hub_folder() -> Path:
    """torch.hub's checkpoint folder, by its documented rules, without importing torch."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return Path(os.environ.get("TORCH_HOME", cache / "torch")).expanduser() / "hub" / "checkpoints"
