"""Rounds as files, of what an observer saw: checkpoints of a federation here, and the log of one anywhere.

A file holds the global model, `before/<key>`, what the server received, `message/<client>/<key>`, the next global model
where it is known, `after/<key>`, each a whole state dict, and in its metadata `round`, a JSON object of its `number`
and of `images`, how many stand behind the message of each client. So any federation can write it, and what attacks it
need not have been there. All is in one entry, since several come in any order, and equal rounds are equal files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from leakboard.errors import Fault, one_line
from leakboard.federation.rounds import Message, Round, State

BEFORE, AFTER, MESSAGE = "before", "after", "message"


class LogError(Fault, ValueError):
    """A log that cannot be read; names the file, what was found and what was expected."""


class Logged(NamedTuple):
    """One round as its observer saw it. messages: by client in ascending order. after: empty where nobody wrote it."""

    number: int
    before: State
    messages: tuple[Message, ...]
    after: State


def write(folder: Path, lived: Round) -> None:
    """Add a round to a log; one of that number that lies there is replaced. LogError where it cannot be."""
    save(Path(folder) / f"round-{lived.number:06}.safetensors", lived)


def save(path: Path, lived: Round) -> None:
    """Whole or not at all: a file that is there is complete. LogError where it cannot be written."""
    tensors = {f"{BEFORE}/{key}": value for key, value in lived.before.items()}
    tensors |= {f"{AFTER}/{key}": value for key, value in lived.after.items()}
    for message in lived.received:
        tensors |= {f"{MESSAGE}/{message.client}/{key}": value for key, value in message.state.items()}
    said = {"number": lived.number, "images": {str(message.client): message.images for message in lived.received}}
    content = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(content, part, {"round": json.dumps(said)})
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise LogError(f"{path}: found no way to write it ({error}), expected a folder with room") from None


def read(folder: Path) -> list[Logged]:
    """All rounds in order; LogError for a folder without any, and for a file that holds no round."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        found = "no file *.safetensors" if Path(folder).is_dir() else "no folder"
        raise LogError(f"{folder}: found {found}, expected the log of a federation")
    return sorted((load(file) for file in files), key=lambda logged: logged.number)


def load(file: Path) -> Logged:
    """One round; LogError for a file that holds none."""
    try:
        with safe_open(file, "pt") as opened:
            said = json.loads((opened.metadata() or {})["round"])
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        images = {int(client): count for client, count in said["images"].items()}
        states: dict[str, State] = {whose: {} for whose in (BEFORE, AFTER, *(f"{MESSAGE}/{one}" for one in images))}
        for key, value in tensors.items():
            whose, _, name = key.partition("/")
            if whose == MESSAGE:
                client, _, name = name.partition("/")
                whose = f"{MESSAGE}/{client}"
            states[whose][name] = value
        number, before = int(said["number"]), states[BEFORE]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        words = one_line(f"{type(error).__name__}: {error}")
        found = f"found no round of a federation ({words}), expected what `federation/log.py` writes"
        raise LogError(f"{file}: {found}") from None
    counts = {client: count for client, count in images.items() if not isinstance(count, int) or count < 1}
    if counts or not before:
        found = f"images {counts}" if counts else f"no `{BEFORE}/`"
        raise LogError(f"{file}: found {found}, expected a global model, and messages of at least one image")
    messages = tuple(Message(client, states[f"{MESSAGE}/{client}"], images[client]) for client in sorted(images))
    return Logged(number, before, messages, states[AFTER])
