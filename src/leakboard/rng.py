"""Randomness is an argument: every generator derives from (seed, trial, purpose) and from nothing else."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on every part and on their order."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def generator(*parts: object) -> torch.Generator:
    """A CPU generator; its draws are moved to the device, so that CPU and CUDA start from the same numbers."""
    return torch.Generator().manual_seed(seed_of(*parts))


@contextlib.contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Seed torch's global generator for code that takes none (PyTorch's initialisers), and restore it afterwards."""
    with torch.random.fork_rng():
        seed_globally(seed_of(*parts))
        yield


def seed_globally(seed: int) -> None:
    """`torch.manual_seed`, without the stack trace that it writes for a CUDA that is not there."""
    if torch.cuda.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
