"""What crosses the border once, whatever the number of trials: public images, named by the hash of their content.

The attack's process keeps those of the last task that had some, as bytes, which nothing changes in place; every task
gets a copy of its own.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from multiprocessing.connection import Connection
from typing import Any

import torch

from leakboard.attack.wire import packed, unpacked
from leakboard.threat import Public


class Parcel:
    """A value for the other side. content: its pickle, in which public images are names; named: these images."""

    def __init__(self, value: Any) -> None:
        self.named: dict[str, Public] = {}
        file = io.BytesIO()
        _Pickler(file, self.named).dump(value)
        self.content = file.getvalue()

    def __len__(self) -> int:
        """Bytes of what it holds, images included."""
        images = (part for public in self.named.values() for part in (public.images, public.labels))
        return len(self.content) + sum(part.numel() * part.element_size() for part in images)


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, named: dict[str, Public]) -> None:
        super().__init__(file)
        self.named = named

    def persistent_id(self, value: Any) -> tuple[str, str] | None:
        if type(value) is not Public or not (value.images.is_contiguous() and value.labels.is_contiguous()):
            return None
        name = name_of(value)
        self.named[name] = value
        return name, str(value.images.device)


def name_of(public: Public) -> str:
    """The hash of images and labels, their types and shapes."""
    sha = hashlib.sha256()
    for part in (public.images, public.labels):
        sha.update(f"{part.dtype} {tuple(part.shape)} ".encode())
        sha.update(part.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def send_images(connection: Connection, kept: set[str], *parcels: Parcel) -> None:
    """To a process that keeps the images of these names what it lacks; `kept` is what it keeps from then on."""
    needed = {name: public for parcel in parcels for name, public in parcel.named.items()}
    coming = [name for name in needed if name not in kept]
    connection.send_bytes(pickle.dumps((list(needed), coming)))
    for name in coming:
        connection.send_bytes(packed({}, {"images": needed[name].images, "labels": needed[name].labels}))
    if needed:
        kept.clear()
        kept.update(needed)


class Kept:
    """The public images on the other side: {name: their bytes}."""

    def __init__(self) -> None:
        self.images: dict[str, bytes] = {}

    def receive(self, connection: Connection) -> None:
        needed, coming = pickle.loads(connection.recv_bytes())
        if needed:
            self.images = {name: content for name, content in self.images.items() if name in needed}
        for name in coming:
            self.images[name] = connection.recv_bytes()

    def opened(self, content: bytes) -> Any:
        """What a parcel holds, with copies of the images."""
        return _Unpickler(io.BytesIO(content), self.images).load()


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, images: dict[str, bytes]) -> None:
        super().__init__(file)
        self.images = images

    def persistent_load(self, reference: tuple[str, str]) -> Public:
        name, device = reference
        parts = unpacked(self.images[name])[1]
        return Public(parts["images"].to(device), parts["labels"].to(device))
