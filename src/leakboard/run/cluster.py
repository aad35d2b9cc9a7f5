"""Trials over the machines of a Ray cluster, one CPU and a share of a GPU each; a worker that dies costs its own trial.

The cluster is the one that RAY_ADDRESS names; without it, or with `local`, Ray is started here, on all CPUs of this
machine, and ended with the trials. On every machine of a cluster the checkout and its environment must lie at the same
path as here, and this process must run on one of those machines. Workers take over the working directory, the import
path and every LEAKBOARD_ variable, so the folder that LEAKBOARD_DATA names must be there, too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from leakboard.errors import Fault

T = TypeVar("T")
R = TypeVar("R")
GPUS = "LEAKBOARD_GPUS_PER_WORKER"
AHEAD = 2  # tasks handed out per CPU of the cluster: one under way, one to spare
CONNECT = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')"


class ClusterError(Fault):
    """The cluster cannot be reached, lacks what the workers need, or starts nothing."""


class _Died(Exception):
    """The process or the machine of a task ended before the task did."""


def gpu_share() -> float:
    """The part of a GPU that each worker asks for, LEAKBOARD_GPUS_PER_WORKER: 0.25 puts four on each; unset is none."""
    text = os.environ.get(GPUS) or "0"
    with contextlib.suppress(ValueError):
        share = float(text)
        if 0 <= share <= 1 or (share > 1 and share.is_integer()):
            return share
    raise ClusterError(f"{GPUS} is {text!r}; expected a share of one GPU, such as 0.25, or a whole number")


def spread(
    work: Callable[[T], R],
    jobs: Sequence[T],
    lost: Callable[[T], R],
    *,
    gpus_per_worker: float = 0.0,
    wait_seconds: float = 60.0,
) -> Iterator[tuple[T, R]]:
    """(job, result) as results come in; `work` must be importable by name.

    A job whose worker dies is tried once more; one that dies again gets the result `lost(job)`, computed here. What
    `work` raises is raised here, with a note that names the job. ClusterError when the cluster does not answer, or
    starts nothing, within `wait_seconds` each, or when no machine of it has what one worker asks for.
    """
    if not jobs:
        return
    waiting, running, died = deque(range(len(jobs))), dict[Any, int](), set[int]()
    with _connected(wait_seconds, running) as ray:
        task = _task(ray, gpus_per_worker, wait_seconds)
        while waiting or running:
            for _ in range(min(len(waiting), AHEAD * _cpus(ray) - len(running))):
                index = waiting.popleft()
                running[task.remote(Path.cwd(), work, jobs[index])] = index
            ready = ray.wait(list(running), timeout=wait_seconds)[0]
            if not ready:  # long trials, or the machines that could run them have left
                _check_room(ray, gpus_per_worker)
            for reference in ready:
                index = running.pop(reference)
                try:
                    result = _result(ray, reference, jobs[index])
                except _Died:
                    if index not in died:
                        died.add(index)
                        waiting.appendleft(index)
                        continue
                    result = lost(jobs[index])
                yield jobs[index], result


def _ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # who asks for no GPU still sees them, as locally
    try:
        import ray
    except ImportError:
        raise ClusterError("Ray is not installed; `pip install 'leakboard[cluster]'` brings it") from None
    return ray


@contextlib.contextmanager
def _connected(wait_seconds: float, running: Mapping[Any, int]) -> Iterator[ModuleType]:
    """Ray, connected; the tasks still running at the end are ended. The caller's own connection is used and kept.

    An end of the connection ends its tasks. They are not cancelled before: that makes Ray 2.55 end this process when a
    task finishes at that moment ("Tried to complete task that was not pending", seen at 2 of 21 interrupts).
    """
    ray, address = _ray(), os.environ.get("RAY_ADDRESS") or "local"
    if ray.is_initialized():
        try:
            yield ray
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
        return
    more: dict[str, Any] = {"num_cpus": os.cpu_count(), "include_dashboard": False} if address == "local" else {}
    if address != "local":
        _check_answer(address, wait_seconds)
    try:
        way = signal.getsignal(signal.SIGTERM)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **more)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, way)  # Ray's own would end this process with trials unsaved
        yield ray
    finally:
        ray.shutdown()


def _check_answer(address: str, wait_seconds: float) -> None:
    """Connects in a process of its own first: where nothing answers, Ray tries for many minutes or ends the process."""
    if "://" in address:
        raise ClusterError(f"RAY_ADDRESS is {address}: expected HOST:PORT or auto, on a machine of the cluster itself")
    call = [sys.executable, "-c", CONNECT, address]
    try:
        subprocess.run(call, timeout=wait_seconds, capture_output=True, text=True, check=True)
    except subprocess.TimeoutExpired:
        raise ClusterError(f"no Ray cluster answers at RAY_ADDRESS={address} within {wait_seconds:g} s") from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip() or f"exit status {error.returncode}").splitlines()[-1]
        raise ClusterError(f"no Ray cluster to connect to at RAY_ADDRESS={address}: {reason}") from None


def _task(ray: ModuleType, gpus: float, wait_seconds: float) -> Any:
    """The remote function, after one empty task has shown that the cluster starts such tasks."""
    _check_room(ray, gpus)
    named = {name: value for name, value in os.environ.items() if name.startswith("LEAKBOARD_")}
    path = os.pathsep.join(folder for folder in sys.path if folder)
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    asked = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0, runtime_env={"env_vars": {**named, **own}})
    first = asked(_enter).remote(Path.cwd())
    if not ray.wait([first], timeout=wait_seconds)[0]:
        free = {name: value for name, value in ray.available_resources().items() if name in ("CPU", "GPU")}
        raise ClusterError(f"no task has started within {wait_seconds:g} s: {_wish(ray, gpus)}; free are {free}")
    with contextlib.suppress(_Died):
        _result(ray, first, "the empty task that tries the cluster")
    return asked(_attempt)


def _check_room(ray: ModuleType, gpus: float) -> None:
    """ClusterError unless some machine of the cluster, busy or not, has what one worker asks for."""
    if not any(cpu >= 1 and gpu >= gpus for cpu, gpu in _machines(ray)):
        raise ClusterError(f"no machine of the cluster can hold a worker: {_wish(ray, gpus)}")


def _wish(ray: ModuleType, gpus: float) -> str:
    machines = ", ".join(f"{cpu:g} CPUs and {gpu:g} GPUs" for cpu, gpu in _machines(ray))
    return f"each asks for 1 CPU and {gpus:g} GPUs, the machines have {machines or 'all left'}"


def _machines(ray: ModuleType) -> list[tuple[float, float]]:
    """(CPUs, GPUs) of every machine that is alive, in use or not."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(has.get("CPU", 0.0), has.get("GPU", 0.0)) for has in alive]


def _cpus(ray: ModuleType) -> int:
    return max(1, int(sum(cpu for cpu, _ in _machines(ray))))


def _result(ray: ModuleType, reference: Any, job: object) -> Any:
    """What a finished task left: its result, _Died, or what it raised."""
    faults = ray.exceptions
    try:
        return ray.get(reference)
    except faults.RayTaskError as error:
        error.cause.add_note(f"raised by {job!r:.200}")
        raise error.cause from error
    except (faults.WorkerCrashedError, faults.NodeDiedError, faults.ActorDiedError) as error:
        raise _Died from error
    except (faults.OutOfMemoryError, faults.ObjectLostError) as error:  # with its machine an object is lost
        raise _Died from error
    except faults.RayError as error:
        raise ClusterError(f"the cluster failed on {job!r:.200}: {error}") from error


def _enter(folder: Path) -> None:
    """On the worker: into the driver's working directory, from which the checkout is found."""
    try:
        os.chdir(folder)
    except OSError as error:
        where = f"{socket.gethostname()} cannot enter {folder} ({error.strerror})"
        raise ClusterError(f"{where}; the checkout must lie at the same path on every machine of the cluster") from None


def _attempt(folder: Path, work: Callable[[T], R], job: T) -> R:
    """On the worker: one job, under the settings that every process that attacks runs under."""
    from leakboard.run import machine

    _enter(folder)
    machine.settle()
    return work(job)
