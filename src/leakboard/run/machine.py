"""Where a number came from: device, versions, commit. And the settings under which numbers are repeatable."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

from leakboard.config import ConfigError

THREADS = 1  # per process: small networks gain nothing from more, and several processes share a machine fairly


def settle(threads: int = THREADS) -> None:
    """One thread, deterministic kernels, no TF32: what every process that attacks runs under."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    _deterministic()
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def _deterministic() -> None:
    """What `torch.use_deterministic_algorithms(True)` does, without the second that its import of the compiler takes.

    The compiler learns of it from the environment, when and where it is imported.
    """
    if "torch._inductor.config" in sys.modules:
        torch.use_deterministic_algorithms(True)
        return
    os.environ["TORCHINDUCTOR_DETERMINISTIC"] = "1"
    torch._C._set_deterministic_algorithms(True, warn_only=False)


def device_of(name: str) -> torch.device:
    """`auto` is CUDA where there is one. ConfigError when the name is none or CUDA is asked for and absent."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {name} asked for, but torch finds no CUDA here; there are: auto, cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ConfigError(f"no device {name!r}; there are: auto, cpu, cuda") from None


def describe(device: torch.device) -> dict[str, object]:
    """The machine columns of a trial line."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device_kind": device.type,
        "device": name,
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
    }


@functools.cache
def commit() -> tuple[str, bool]:
    """(commit, whether code or content differ from it); ("", True) outside a checkout."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head, bool(_git("status", "--porcelain", "--", "src", "baselines", "benchmarks"))
    except (OSError, subprocess.CalledProcessError):
        return "", True


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()


@functools.cache
def _processor() -> str:
    """Its name and the vector instructions that torch takes: under one name there are processors that round apart."""
    return f"{_model_name()}, {torch.backends.cpu.get_cpu_capability()}"


def _model_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
