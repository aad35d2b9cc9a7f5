"""What an observer of a federation saw, as files: one `round-<number>.safetensors` for every round.

A file holds the global model, `before/<key>`, what the server received, `message/<client>/<key>`, each a whole state
dict, and in its metadata `round` and `images`, the number behind every message as a JSON object. So any federation can
write it, and what attacks it need not have been there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from leakboard.errors import Fault, one_line
from leakboard.federation.rounds import Message, Round, State

BEFORE, MESSAGE = "before", "message"


class LogError(Fault, ValueError):
    """A log that cannot be read; names the file, what was found and what was expected."""


class Logged(NamedTuple):
    """One round as its observer saw it. messages: by client in ascending order."""

    number: int
    before: State
    messages: tuple[Message, ...]


def write(folder: Path, lived: Round) -> None:
    """Add a round; one of that number that lies there is replaced, whole or not at all. LogError where it cannot be."""
    tensors = {f"{BEFORE}/{key}": value for key, value in lived.before.items()}
    for message in lived.received:
        tensors |= {f"{MESSAGE}/{message.client}/{key}": value for key, value in message.state.items()}
    images = json.dumps({str(message.client): message.images for message in lived.received})
    content = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    path = Path(folder) / f"round-{lived.number:06}.safetensors"
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(content, part, {"round": str(lived.number), "images": images})
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise LogError(f"{path}: found no way to write it ({error}), expected a folder with room") from None


def read(folder: Path) -> list[Logged]:
    """All rounds in order; LogError for a folder without any, and for a file that holds no round."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        found = "no file *.safetensors" if Path(folder).is_dir() else "no folder"
        raise LogError(f"{folder}: found {found}, expected the log of a federation")
    return sorted((_read(file) for file in files), key=lambda logged: logged.number)


def _read(file: Path) -> Logged:
    try:
        with safe_open(file, "pt") as opened:
            said = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        images = {int(client): count for client, count in json.loads(said["images"]).items()}
        states: dict[int, State] = {client: {} for client in images}
        before: State = {}
        for key, value in tensors.items():
            kind, _, rest = key.partition("/")
            client, _, name = rest.partition("/")
            (before if kind == BEFORE else states[int(client)])[rest if kind == BEFORE else name] = value
        number = int(said["round"])
    except (SafetensorError, OSError, KeyError, ValueError, AttributeError) as error:
        words = one_line(f"{type(error).__name__}: {error}")
        found = f"found no round of a federation ({words}), expected what `federation/log.py` writes"
        raise LogError(f"{file}: {found}") from None
    counts = {client: count for client, count in images.items() if not isinstance(count, int) or count < 1}
    if counts or not before:
        found = f"images {counts}" if counts else f"no `{BEFORE}/`"
        raise LogError(f"{file}: found {found}, expected a global model, and messages of at least one image")
    return Logged(number, before, tuple(Message(client, states[client], images[client]) for client in sorted(images)))
