"""What an attack was given stays as it was: hashes before and after."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from leakboard.threat import Seen


@contextlib.contextmanager
def unchanged(seen: Sequence[Seen]) -> Iterator[None]:
    """RuntimeError when what must stay as it is has changed at the end."""
    before = [fingerprint(one) for one in seen]
    yield
    for one, prints in zip(seen, before, strict=True):
        changed = [name for name, value in fingerprint(one).items() if value != prints[name]]
        if changed:
            raise RuntimeError(f"the attack changed {', '.join(changed)}")


def fingerprint(seen: Seen) -> dict[str, str]:
    """Hashes of all that an attack must leave as it is: global randomness, the model, the observation.

    In train mode every pass moves the running statistics of batch norm, so only the parameters count there.
    """
    model, apart = seen.model, ("model", "loss", "observer", "meter", "turns", "query")
    parts = {
        "the global random state": [torch.random.get_rng_state()],
        "its model": list(model.parameters()) if model.training else list(model.state_dict().values()),
        "its observation": list(tensors_of({name: part for name, part in vars(seen).items() if name not in apart})),
    }
    return {name: sha_of(tensors) for name, tensors in parts.items()}


def tensors_of(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)
    elif hasattr(value, "__dict__"):
        yield from tensors_of(vars(value))


def sha_of(tensors: list[Tensor]) -> str:
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:12]
