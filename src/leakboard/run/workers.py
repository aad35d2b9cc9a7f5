"""Trials over worker processes: one thread each, spawned; a worker that dies costs at most its own trial."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.util
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Literal, NoReturn, TypeVar

from leakboard.run import cluster

T = TypeVar("T")
R = TypeVar("R")
# (which, how many done, of how many, why all of those done have failed or '', what is counted: trials where absent)
Report = Callable[..., None]
OF_A_TERMINAL = (signal.SIGINT, signal.SIGHUP)


def silent(*told: object) -> None:
    """The report to nobody."""


def spread(
    work: Callable[[T], R], jobs: Sequence[T], workers: int | Literal["ray"], lost: Callable[[T], R]
) -> Iterator[tuple[T, R]]:
    """(job, result) as results come in. `workers` 0 runs here, in order; "ray" runs on the machines of a cluster, with
    the share of a GPU that LEAKBOARD_GPUS_PER_WORKER names (`cluster.py`). `work` must be importable by name.

    When a worker dies, the jobs that were under way are tried once more, each in a process of its own; one that dies
    again gets the result `lost(job)`. All others go on as before.
    """
    if workers == "ray":
        yield from cluster.spread(work, jobs, lost, gpus_per_worker=cluster.gpu_share())
        return
    if workers == 0:
        yield from ((job, work(job)) for job in jobs)
        return
    waiting = list(range(len(jobs)))
    while waiting:
        running: dict[Future[R], int] = {}
        try:
            for index, result in _pooled(work, jobs, waiting, workers, running):
                waiting.remove(index)
                yield jobs[index], result
        except BrokenProcessPool:
            for index in sorted(set(running.values())):
                waiting.remove(index)
                yield jobs[index], _alone(work, jobs, index, lost)


def _alone(work: Callable[[T], R], jobs: Sequence[T], index: int, lost: Callable[[T], R]) -> R:
    try:
        return next(result for _, result in _pooled(work, jobs, [index], 1, {}))
    except BrokenProcessPool:
        return lost(jobs[index])


def _pooled(
    work: Callable[[T], R], jobs: Sequence[T], chosen: Sequence[int], workers: int, running: dict[Future[R], int]
) -> Iterator[tuple[int, R]]:
    """Hands out one job per worker and one to spare; `running` shows which are under way when the pool breaks."""
    context = multiprocessing.get_context("spawn")
    waiting = iter(list(chosen))
    with _deaf():
        pool = ProcessPoolExecutor(min(workers, len(chosen)), mp_context=context, initializer=_settle)
    processes = pool._processes
    try:
        while True:
            while len(running) <= workers and (index := next(waiting, None)) is not None:
                with _deaf():
                    running[pool.submit(work, jobs[index])] = index
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                result = future.result()
                yield running.pop(future), result
    finally:
        for process in list((processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """A process that is started in here never hears Ctrl-C nor the end of its terminal, which reach all processes of a
    group: they are the parent's business, from the first moment on. This process hears them after the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_A_TERMINAL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _settle() -> None:
    """One thread per worker, which ends when its parent is gone, and not with its terminal."""
    for number in OF_A_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _leave())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from leakboard.run import machine

    machine.settle()


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, and they would wait for its next job for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        _leave()


def _leave() -> NoReturn:
    """The end of a worker: of the attacks' processes first, and of what lies in its temporary folders."""
    from leakboard.run import box

    box.end_all()
    multiprocessing.util._exit_function()  # type: ignore[attr-defined]
    os._exit(1)
