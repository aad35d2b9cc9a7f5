"""Work for workers of a cluster, which import it by name. What dies leaves a mark in the folder it is given."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def double(job: int) -> int:
    return 2 * job


def surroundings(job: int) -> dict[str, object]:
    """What a worker finds around it."""
    import torch

    return {
        "pid": os.getpid(),
        "folder": str(Path.cwd()),
        "data": os.environ.get("LEAKBOARD_DATA"),
        "threads": (os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def dies(job: tuple[Path, str]) -> str:
    """`once` dies the first time, `always` every time; all others live."""
    folder, name = job
    mark = folder / name
    deaths = len(mark.read_text()) if mark.exists() else 0
    if name == "always" or (name == "once" and not deaths):
        mark.write_text("x" * (deaths + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{name} after {deaths}"


def buried(job: tuple[Path, str]) -> str:
    return f"{job[1]} lost"


def raises(job: int) -> int:
    if job == 2:
        raise ZeroDivisionError("no good")
    return job


def sleeps(job: tuple[Path, float]) -> None:
    """Says that it has started, then waits."""
    folder, seconds = job
    (folder / str(os.getpid())).touch()
    time.sleep(seconds)


def no_loss(job: object) -> None:
    raise AssertionError(f"{job} counts as lost")
