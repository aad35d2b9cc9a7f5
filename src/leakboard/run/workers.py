"""Trials over worker processes: one thread each, spawned; a worker that dies costs at most its own trial."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Literal, TypeVar

from leakboard.run import cluster

T = TypeVar("T")
R = TypeVar("R")


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
    pool = ProcessPoolExecutor(min(workers, len(chosen)), mp_context=context, initializer=_settle)
    processes = pool._processes
    try:
        while True:
            while len(running) <= workers and (index := next(waiting, None)) is not None:
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


def _settle() -> None:
    """One thread per worker; Ctrl-C is the parent's business, and a worker ends when its parent is gone."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from leakboard.run import machine

    machine.settle()


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, and they would wait for its next job for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
