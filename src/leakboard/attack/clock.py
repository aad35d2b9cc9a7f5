"""Time and memory of an attack alone: CUDA events on CUDA, the performance counter on a CPU, peak bytes of both."""

from __future__ import annotations

import contextlib
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch


class Clock:
    """Runs between `start` and `stop`; `paused()` takes a stretch out. Seconds are those of the device."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.device = device
        self.total = 0.0
        self._since: torch.cuda.Event | float | None = None

    def start(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)
            self._since = torch.cuda.Event(enable_timing=True)
            self._since.record()
        else:
            self._since = time.perf_counter()

    def stop(self) -> None:
        if isinstance(self._since, float):
            self.total += time.perf_counter() - self._since
        elif self._since is not None:
            end = torch.cuda.Event(enable_timing=True)
            end.record()
            end.synchronize()
            self.total += self._since.elapsed_time(end) / 1e3
        self._since = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self.start()
        try:
            yield
        finally:
            self.stop()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()


def reset_peak(device: torch.device) -> None:
    """Forget the peak so far, where the platform can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: torch.device) -> int:
    """CUDA: bytes allocated at the peak. CPU: resident bytes of the process at the peak."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """TimeoutError after `seconds`; no limit outside the main thread, where no signal arrives."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def expire(*_: object) -> None:
        raise TimeoutError(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
