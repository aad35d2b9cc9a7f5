"""One point of how cost grows, measured in a process of its own so that its peak memory is its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from timing import Span, floor, observation, timed

from leakboard.attack.clock import peak_bytes, reset_peak
from leakboard.attack.matching import Matching, cosine_distance
from leakboard.run import machine

LEAST, SECONDS = 3, 0.5  # evaluations of a point: so many, more while half a second lasts
MOST = 50
LONGEST = 60.0  # seconds of compilation beyond which a point is left out


@dataclass(frozen=True)
class Point:
    """network of `width` (None: its own), images (batch, 3, side, side), and the kind of execution."""

    network: str
    width: int | None = None
    side: int = 32
    batch: int = 1
    execution: str = "loop"

    def __str__(self) -> str:
        width = "" if self.width is None else f"-w{self.width}"
        return f"{self.network}{width}-side{self.side}-batch{self.batch}-{self.execution}"


def measure(point: Point) -> dict[str, object]:
    """Seconds of one cosine-matching evaluation, and the memory of network, observation and evaluation together.

    peak_bytes: CUDA: allocated at the peak. CPU: resident at the peak less what was resident before there was a
    network, when the libraries had been used once on a tiny one; None where a compiler ran in the same process.
    """
    from torch._inductor.utils import fresh_cache

    machine.settle()
    device = machine.device_of("auto")
    tiny = observation("lenet_sigmoid", None, 16, 1, device)
    assert tiny.labels is not None
    floor(tiny.model, tiny.loss, tiny.gradient[0].new_zeros(tiny.shape), tiny.labels)()
    before = 0 if device.type == "cuda" else resident_bytes()
    reset_peak(device)
    seen = observation(point.network, point.width, point.side, point.batch, device, point.execution)
    assert seen.labels is not None
    matching, labels = Matching(seen, cosine_distance), seen.labels
    images = seen.gradient[0].new_full(seen.shape, 0.5).requires_grad_()
    began = time.perf_counter()
    with fresh_cache():
        matching(images, labels, [images])
    warm_up = time.perf_counter() - began
    spans: list[Span] = []
    began = time.perf_counter()
    while len(spans) < LEAST or (len(spans) < MOST and time.perf_counter() - began < SECONDS):
        spans.append(timed(lambda: matching(images, labels, [images]), device))
    return {
        "parameters": sum(parameter.numel() for parameter in seen.model.parameters()),
        "seconds_per_step": median([span.seconds for span in spans]),
        "peak_bytes": None if before and point.execution == "compiled" else peak_bytes(device) - before,
        "warm_up_seconds": warm_up,
    }


def resident_bytes() -> int:
    """What this process holds in memory now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
